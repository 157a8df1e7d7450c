"""Closed forms of decoders beyond GPT-2's shape, held against a traced one of each kind."""

import jax
import jax.numpy as jnp
import pytest

from refgrad.cost import count, count_backward
from refgrad.cost.conventions import Decoder, compare, visible_pairs
from tests.cost.lax_samples import spec

SIZES = {"n_layer": 2, "n_embd": 12, "n_head": 4, "vocab_size": 11, "seq_len": 6, "batch": 2}
KINDS = {
    "GPT-2's": {},
    "untied": {"tied": False},
    "grouped queries": {"n_kv_head": 2},
    "one key head, wide heads": {"n_kv_head": 1, "head_dim": 5},
    "gated": {"gated": True, "mlp_width": 20},
    "experts": {"n_experts": 4, "experts_per_token": 2, "mlp_width": 7},
    "gated experts, grouped": {"n_experts": 3, "experts_per_token": 1, "gated": True, "n_kv_head": 2},
    "LoRA": {"lora_rank": 3},
    "LoRA, gated, grouped": {"lora_rank": 2, "gated": True, "n_kv_head": 1},
}


def matrices(d):
    """(weights, adapters) of a decoder, abstract: a list of matrices a block, router first where there is one."""
    mlp = [shape for _ in range(d.experts_per_token) for shape in d.mlp_matrices]
    router = [(d.n_embd, d.n_experts)] * (d.n_experts > 1)
    block = [spec(*shape) for shape in (*d.attention_matrices, *mlp, *router)]
    adapters = [(spec(w.shape[0], d.lora_rank), spec(d.lora_rank, w.shape[1])) for w in block] if d.lora_rank else []
    return [block] * d.n_layer, [adapters] * d.n_layer, spec(d.n_embd, d.vocab_size)


def logits(d, x, blocks, adapters, head):
    """The products of a decoder in their order, with what stands between them left out."""

    def through(x, n, block, adapters):
        y = x @ block[n]
        return y + x @ adapters[n][0] @ adapters[n][1] if d.lora_rank else y

    for block, adapter in zip(blocks, adapters, strict=True):
        q, k, v = (through(x, n, block, adapter) for n in range(3))
        q = q.reshape(d.batch, d.seq_len, d.kv_heads, -1, d.head)
        k, v = (z.reshape(d.batch, d.seq_len, d.kv_heads, d.head) for z in (k, v))
        scores = jax.nn.softmax(jnp.einsum("bskgd,btkd->bkgst", q, k))
        x = x + through(jnp.einsum("bkgst,btkd->bskgd", scores, v).reshape(*x.shape[:2], -1), 3, block, adapter)
        n, matrices = 4, len(d.mlp_matrices)
        gate = jnp.sum(x @ block[-1]) if d.n_experts > 1 else 1.0
        for _ in range(d.experts_per_token):
            up = [jnp.tanh(through(x, n + m, block, adapter)) for m in range(matrices - 1)]
            x = x + gate * through(up[0] * up[-1], n + matrices - 1, block, adapter)
            n += matrices
    return x @ head


@pytest.mark.parametrize("name", KINDS)
def test_a_traced_decoder(name):
    d = Decoder(**SIZES, **KINDS[name])
    blocks, adapters, head = matrices(d)
    x = spec(d.batch, d.seq_len, d.n_embd)
    f = lambda *args: logits(d, *args)  # noqa: E731
    forward = count(f, x, blocks, adapters, head).matmul
    assert forward == d.forward_flops()
    trained = {"argnums": 2} if d.lora_rank else {}
    assert forward + count_backward(f, x, blocks, adapters, head, **trained).matmul == d.step_flops()
    assert d.forward_flops(effective=True) < d.forward_flops()


@pytest.mark.parametrize("causal", (True, False))
@pytest.mark.parametrize("window", (None, 1, 3, 7, 50))
def test_visible_pairs(causal, window):
    n = 7
    seen = [abs(i - j) < (window or n) and (not causal or j <= i) for i in range(n) for j in range(n)]
    assert visible_pairs(n, causal, window) == sum(seen)


def test_weights():
    """Mixtral's and Llama's published sizes."""
    mixtral = Decoder(32, 4096, 32, 32000, 4096, n_kv_head=8, mlp_width=14336, gated=True, n_experts=8,
                      experts_per_token=2, tied=False)  # fmt: skip
    assert round(mixtral.weights / 1e9, 1) == 46.7 and round(mixtral.active_weights / 1e9, 1) == 12.7
    llama = Decoder(32, 4096, 32, 128256, 8192, n_kv_head=8, mlp_width=14336, gated=True, tied=False)
    assert round(llama.weights / 1e9, 2) == 8.03


def test_the_table():
    text = compare(Decoder(**SIZES, window=2))
    for words in ("matmuls, exact", "effective", "6·N_active", "visible"):
        assert words in text


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ({"n_kv_head": 3}, "n_head=4 is not divisible by n_kv_head=3"),
        ({"experts_per_token": 2}, "experts_per_token=2 exceeds n_experts=1"),
        ({"n_embd": 13}, "n_embd=13 is not divisible by n_head=4"),
        ({"window": 0}, "window=0: a size is a Python int"),
        ({"lora_rank": -1}, "lora_rank=-1"),
    ],
)
def test_bad_sizes(sizes, says):
    with pytest.raises(ValueError, match=says):
        Decoder(**{**SIZES, **sizes})
