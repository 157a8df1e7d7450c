"""No FLOP of a GPT-2 unexplained: forward, backward and both; loop and scan; remat; tied or not; 124M to 1.5B."""

import jax
import jax.numpy as jnp
import pytest

from refgrad.cost import count, count_backward, reconcile, xla_backward
from refgrad.cost.conventions import Dimensions, matmul_flops
from refgrad.cost.scopes import by_scope, scope_of
from refgrad.models import gpt2
from tests.lanes import fast_if

SIZES = {"124M": (12, 768, 12), "355M": (24, 1024, 16), "774M": (36, 1280, 20), "1.5B": (48, 1600, 25)}
WAYS = {
    "loop": {},
    "scan": {"scan": True},
    "loop, remat": {"remat": True},
    "scan, remat": {"scan": True, "remat": True},
    "autodiff": {"rules": "autodiff"},
}


def program(config, seq_len, batch=1, **how):
    """The loss as a function of (params, tokens), and its abstract arguments."""
    params = jax.eval_shape(lambda key: gpt2.init(key, config), jax.random.key(0))
    tokens = jax.ShapeDtypeStruct((batch, seq_len), jnp.int32)
    return (lambda params, tokens: gpt2.loss(params, tokens, tokens, config, **how)), params, tokens


def sized(name, **more):
    n_layer, n_embd, n_head = SIZES[name]
    return gpt2.Config(n_layer=n_layer, n_embd=n_embd, n_head=n_head, n_positions=1024, vocab_size=50257, **more)


@pytest.mark.parametrize("tied", fast_if(bool, [True, False]))
@pytest.mark.parametrize("way", WAYS)
def test_tiny(way, tied):
    config = gpt2.Config(n_layer=2, n_embd=24, n_head=2, n_positions=16, vocab_size=61, tie_word_embeddings=tied)
    f, *args = program(config, 12, batch=2, **WAYS[way])
    assert reconcile(f, *args).ok
    assert reconcile(f, *args, backward=True).ok
    assert reconcile(jax.value_and_grad(f), *args).ok


@pytest.mark.parametrize("way", fast_if(lambda way: way == "loop", ["loop", "scan, remat"]))
def test_124m(way):
    f, *args = program(sized("124M"), 1024, **WAYS[way])
    forward, backward = reconcile(f, *args), reconcile(f, *args, backward=True)
    assert forward.ok and backward.ok
    if way == "loop":
        assert forward.count.matmul + backward.count.matmul == 874_944_921_600


@pytest.mark.parametrize("size", fast_if(lambda size: size == "1.5B", SIZES))
def test_scanned_at_every_size(size):
    """Forward and backward at s = 1024, nothing allocated; the products are the dimension formula's."""
    f, *args = program(sized(size), 1024, scan=True)
    forward, backward = reconcile(f, *args), reconcile(f, *args, backward=True)
    n_layer, n_embd, n_head = SIZES[size]
    exact = matmul_flops(Dimensions(n_layer, n_embd, n_head, vocab_size=50257, seq_len=1024))
    assert forward.count.matmul + backward.count.matmul == exact


@pytest.mark.slow
@pytest.mark.parametrize("way", ["loop", "loop, remat"])
@pytest.mark.parametrize("size", ["355M", "774M", "1.5B"])
def test_unrolled_at_every_size(size, way):
    f, *args = program(sized(size), 1024, **WAYS[way])
    assert reconcile(f, *args).ok and reconcile(f, *args, backward=True).ok


@pytest.mark.slow
@pytest.mark.parametrize("way", ["loop", "scan"])
def test_the_walk_equals_the_compiled_count_of_124m(way):
    """Far beyond 2²⁴, after the compiler: XLA's float32 sums, replayed bit for bit."""
    f, *args = program(sized("124M"), 256, **WAYS[way])
    cost = xla_backward(f, *args, stage="compiled")
    assert (cost.flops, cost.transcendentals) == cost.hlo.replayed
    assert cost.flops != cost.hlo.flops
    if way == "scan":
        assert cost.flops < 50e9 < 130e9 < cost.hlo.executed.flops


@pytest.mark.parametrize("way", WAYS)
def test_scopes_agree_one_by_one(way):
    """Not only the sums: every named scope costs the same in the jaxpr's count and in HLO."""
    config = gpt2.Config(n_layer=2, n_embd=24, n_head=2, n_positions=16, vocab_size=61)
    f, *args = program(config, 12, batch=2, **WAYS[way])
    for backward in (False, True):
        r = reconcile(f, *args, backward=backward)
        rows = by_scope(r.count, r.lowered.hlo)
        assert len(rows) > 8
        assert [row for row in rows if not row.agrees] == []
        assert sum(row.flops for row in rows) == r.count.flops


def test_remat_costs_what_is_recomputed():
    config = sized("124M")
    f, *args = program(config, 1024)
    g, *_ = program(config, 1024, remat=True)
    again = count_backward(g, *args)
    assert again.matmul == count_backward(f, *args).matmul + again.recomputed.matmul
    assert 0 < again.recomputed.matmul < count(f, *args).matmul


@pytest.mark.parametrize(
    ("op_name", "scope"),
    [
        ("jit(f)/lin/dot_general", "lin"),
        ("jit(<lambda>)/jvp(h.0)/attn/softmax/jit(_where)/select_n", "h.0/attn/softmax"),
        ("jit(f)/transpose(jvp(h))/while/body/closed_call/mlp/mul", "h/mlp"),
        ("jit(f)/transpose(jvp(h))/jvp(h)/checkpoint/rematted_computation/mlp/mul", "h/mlp"),
        ("jit(f)/a/cond/branch_1_fun/b/add", "a/b"),
        ("jit(f)/a/vmap(jvp())/vmap(b)/sin", "a/b"),
        ("tokens", ""),
    ],
)
def test_scope_of_an_op_name(op_name, scope):
    assert scope_of(op_name) == scope
