"""The whole GPT-2 for D2's rows: traced at its four sizes, written out in NumPy, differentiated, and timed in parts."""

import statistics
import time
from collections.abc import Iterator, Mapping
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refgrad import cost, verify
from refgrad.claims._formula import evaluate
from refgrad.claims._ledger import Case
from refgrad.jaxpr.scaffold import scaffold
from refgrad.models import gpt2
from refgrad.ops import TABLE
from refgrad.ops.gelu import A, C

LAYER = (
    "a = norm(x, ln_1_weight[{l}], ln_1_bias[{l}])",
    "qkv = reshape(a @ c_attn_weight[{l}] + c_attn_bias[{l}], b, s, 3, n_h, d)",
    "scores = einsum('bind,bjnd->bnij', qkv[:, :, 0], qkv[:, :, 1]) / sqrt(d)",
    "heads = einsum('bnij,bjnd->bind', softmax(scores + mask), qkv[:, :, 2])",
    "x = x + reshape(heads, b, s, h) @ attn_c_proj_weight[{l}] + attn_c_proj_bias[{l}]",
    "f = gelu(norm(x, ln_2_weight[{l}], ln_2_bias[{l}]) @ c_fc_weight[{l}] + c_fc_bias[{l}])",
    "x = x + f @ mlp_c_proj_weight[{l}] + mlp_c_proj_bias[{l}]",
)
LAYERS = 1  # of the listing; further layers repeat it, and compiling them takes most of the time
BATCH = 8
# The architecture as D2's overview has it, step by step.
LISTING = "; ".join(
    (
        "x = wte[tokens] + wpe[:s]",
        *(step.format(l=n) for n in range(LAYERS) for step in LAYER),
        "p = log(softmax(norm(x, ln_f_weight, ln_f_bias) @ head.T))",
        "-sum(p * picked) / (b * s)",
    )
)
FUNCTIONS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "norm": (
        ("x", "gamma", "beta"),
        "c = x - mean(x, -1, keepdims=True); gamma * c / sqrt(mean(c * c, -1, keepdims=True) + eps) + beta",
    ),
    "softmax": (("x",), "exp(x) / sum(exp(x), -1, keepdims=True)"),
    "gelu": (("x",), "1 / 2 * x * (1 + tanh(a * (x + c * x ** 3)))"),
}
ALLOWED = 1e-11  # of the largest entry of a parameter's gradient, in float64
CONFIGS = (
    (gpt2.Config(LAYERS, 2, 6, 7, 9), 3, 5),
    (gpt2.Config(LAYERS, 1, 4, 6, 11, tie_word_embeddings=False), 2, 3),
    (gpt2.Config(LAYERS, 3, 12, 4, 8), 1, 4),
)


@cache
def passes(size: str) -> tuple[cost.Count, cost.Count]:
    """The traced forward and backward pass at one of GPT-2's sizes: `BATCH` full sequences, from shapes alone."""
    config = gpt2.SIZES[size]
    with jax.enable_x64(False):
        program = gpt2.abstract_loss(config, BATCH, config.n_positions, scan=True)
        return cost.count(*program), cost.count_backward(*program)


@cache
def _program(n: int) -> tuple[gpt2.Params, np.ndarray, np.ndarray, np.ndarray, float]:
    """Random parameters (no bias 0, no gain 1), tokens and targets; the loss, and the largest difference of any
    parameter's gradient by the rules to autodiff's, of its largest entry."""
    config, b, s = CONFIGS[n]
    rng = np.random.default_rng(n)
    params = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape) / 2, gpt2.shapes(config))
    tokens, targets = rng.integers(0, config.vocab_size, (2, b, s))
    loss = partial(gpt2.loss, tokens=tokens, targets=targets, config=config)
    both = jax.value_and_grad(loss), jax.grad(verify.without_rules(loss))
    (value, got), want = jax.tree.map(np.asarray, scaffold(lambda params: tuple(f(params) for f in both))(params))
    gaps = jax.tree.map(lambda g, w: float(np.max(np.abs(g - w)) / np.max(np.abs(w))), got, want)
    return params, tokens, targets, value, max(jax.tree.leaves(gaps))


def _at(n: int) -> str:
    config, b, s = CONFIGS[n]
    return f"b={b}, s={s}, h={config.n_embd}, n_h={config.n_head}, V={config.vocab_size}, n_L={config.n_layer}"


def _function(parameters: tuple[str, ...], text: str, config: gpt2.Config) -> Any:
    constants = {"a": A, "c": C, "eps": config.layer_norm_epsilon}
    return lambda *args: evaluate(text, {**constants, **dict(zip(parameters, args, strict=True))})


def _layers(params: gpt2.Params) -> dict[str, np.ndarray]:
    """The layers' parameters stacked, by the listing's names: h.0.attn.c_attn.weight is c_attn_weight[0]."""
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *params["h"])
    named = {}
    for path, leaf in jax.tree.leaves_with_path(stacked):
        *_, module, last = (part.key for part in path)
        named["_".join([*([path[0].key] if module == "c_proj" else []), module, last])] = leaf
    return named


def losses() -> Iterator[Case]:
    """The listing's names, and the model's own loss."""
    for n, (config, b, s) in enumerate(CONFIGS):
        params, tokens, targets, loss, _ = _program(n)
        wte, wpe = (params[name]["weight"] for name in ("wte", "wpe"))
        values = {
            **config.dims(b, s),
            **_layers(params),
            **{name: _function(*function, config) for name, function in FUNCTIONS.items()},
            **{"wte": wte, "wpe": wpe, "tokens": tokens, "picked": np.eye(config.vocab_size)[targets]},
            "head": wte if config.tie_word_embeddings else params["lm_head"]["weight"],
            "ln_f_weight": params["ln_f"]["weight"],
            "ln_f_bias": params["ln_f"]["bias"],
            "mask": np.triu(np.full((s, s), -np.inf), 1),
        }
        yield Case(_at(n), values, loss)


def gradient_gaps() -> Iterator[Case]:
    """Largest difference of any parameter's gradient between the rules and autodiff."""
    for n in range(len(CONFIGS)):
        yield Case(_at(n), {"gap": _program(n)[-1], "allowed": ALLOWED})


@cache
def seconds() -> dict[str, float]:
    """Operation → seconds per FLOP of its backward pass at 124M's widths, 128 tokens, float32.

    The median of 5 runs of each, in turns.
    """
    dims = {**gpt2.SIZES["124M"].dims(1, 128), "i": 768, "o": 3072}
    programs = {}
    with jax.enable_x64(False):
        for name in ("linear", "layer_norm"):
            op, args = TABLE[name].bound(dims), TABLE[name].sample(0, dims, jnp.float32)
            y, pull = jax.jit(lambda *args, op=op: jax.vjp(op, *args))(*args)
            programs[name] = (jax.jit(pull), y, cost.count_backward(op, *args).flops)
        times: dict[str, list[float]] = {name: [] for name in programs}
        for turn in range(6):
            for name, (pull, y, _) in programs.items():
                start = time.perf_counter()
                jax.block_until_ready(pull(y))
                if turn:  # the first compiles
                    times[name].append(time.perf_counter() - start)
    return {name: statistics.median(times[name]) / programs[name][2] for name in programs}
