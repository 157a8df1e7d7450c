"""Bytes kept from forward to backward: measured = derived, under rules, plain autodiff and rematerialisation."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.ad_checkpoint import checkpoint_name

from refgrad.cost import memory, residuals
from refgrad.jaxpr.versions import newest
from refgrad.models import gpt2
from refgrad.ops import TABLE
from refgrad.symbols import evaluate
from tests.cost.lax_samples import X, spec
from tests.ops.cases import DIMS, NAMES

N = 35  # elements of X
SHAPES = [(2, 7, 12, 3), (3, 5, 20, 4), (1, 11, 8, 2)]  # b, s, h, n_h


@jax.custom_vjp
def cube(x):
    """x³, with a rule that keeps x² in bfloat16."""
    return x * x * x


cube.defvjp(
    lambda x: (x * x * x, (x * x).astype(jnp.bfloat16)),
    lambda xx, ct: (ct * xx.astype(ct.dtype) * 3.0,),
)


def scanned(x):
    return jax.lax.scan(lambda c, _: (jnp.sin(c), None), x, None, length=6)[0]


# name → (function, bytes kept, bytes of arguments kept)
CLOSED = {
    "linear in x": (lambda x: x * 3.0, 0, 0),
    "sin keeps cos": (jnp.sin, 4 * N, 0),
    "square keeps its argument": (lambda x: x * x, 0, 4 * N),
    "exp keeps its value": (jnp.exp, 4 * N, 0),
    "one array for two uses": (lambda x: (lambda y: y * y * y.sum())(jnp.exp(x)), 2 * 4 * N + 4, 0),
    "a mask of booleans": (lambda x: jnp.where(x > 0, 2.0 * x, 3.0 * x), N, 0),
    "a rule keeps what it says": (cube, 2 * N, 0),
    "in jit as outside": (jax.jit(jnp.sin), 4 * N, 0),
    "an argument through two jits": (jax.jit(lambda x: jax.jit(jnp.multiply)(x, x)), 0, 4 * N),
    "scan keeps every trip's": (scanned, 6 * 4 * N, 0),
    "checkpoint keeps its argument": (jax.checkpoint(lambda x: jnp.sin(jnp.exp(x))), 0, 4 * N),
    "checkpoint of what was made": (lambda x: jax.checkpoint(jnp.sin)(jnp.exp(x)), 4 * N, 0),
}


@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms(name):
    f, kept, given = CLOSED[name]
    measured = residuals(f, X)
    assert (measured.bytes, measured.argument_bytes) == (kept, given)
    assert sum(measured.by_scope.values()) == measured.bytes


def test_policy_decides_what_is_kept():
    def f(x, w):
        return jnp.sin(jnp.tanh(x @ w) @ w)

    w = spec(7, 7)
    dots = jax.checkpoint(f, policy=jax.checkpoint_policies.dots_saveable)
    assert residuals(dots, X, w).bytes == 2 * 4 * N
    assert residuals(jax.checkpoint(f), X, w).bytes == 0
    assert residuals(f, X, w).bytes == 3 * 4 * N  # tanh, 1 − tanh, cos


def test_a_checkpoint_around_a_scan_within_a_scan():
    """Both bodies are called by name in the traced pullback; what is kept is each group's input alone."""

    def group(x, ws):
        return jax.lax.scan(lambda x, w: (jnp.sin(x * w), None), x, ws)

    def f(ws, x):
        return jax.lax.scan(jax.checkpoint(group), x, ws)[0]

    assert residuals(f, jnp.ones((3, 2, 4)), jnp.ones(4)).bytes == 3 * 4 * 4


def test_scopes_and_sources():
    def f(x):
        with jax.named_scope("outer"):
            return jax.lax.scan(lambda c, _: (inner(c), None), x, None, length=6)[0]

    def inner(x):
        with jax.named_scope("inner"):
            return jax.jit(jnp.sin)(x)

    (kept,) = residuals(f, X).kept
    assert (kept.scope, kept.primitive, kept.shape, kept.dtype) == ("outer/inner", "cos", (6, 5, 7), "float32")
    assert "test_residuals.py:" in kept.source
    text = str(residuals(f, X))
    assert "outer/inner" in text and f"{6 * 4 * N:,}" in text and "arguments, kept anyway" in text


@pytest.mark.parametrize("dtype", (jnp.float32, jnp.bfloat16), ids=lambda d: jnp.dtype(d).name)
@pytest.mark.parametrize("name", NAMES)
def test_every_operation_keeps_what_its_row_says(name, dtype):
    row = TABLE[name]
    item = jnp.dtype(dtype).itemsize
    for dims in DIMS:
        measured = residuals(row.bound(dims), *row.shapes(dims, dtype))
        derived = evaluate(row.residuals, {**dims, "item": item, "a": max(4, item)})
        assert measured.bytes + measured.argument_bytes == derived


def rules(b, s, h, n_h):
    """Twice x̂, 1/σ and the norm's value (4bsh + 2bs); q, k, v and the heads' mixture (4bsh); p; GELU's argument and
    value (8bsh)."""
    return 4 * (16 * b * s * h + b * n_h * s * s + 2 * b * s)


def autodiff(b, s, h, n_h):
    """Two norms (6bsh + 4bs + 2h), q, k, v and the mixture (4bsh), GELU (20bsh, and of its tanh y and 1 − y, or since
    JAX 0.11 only 1 − y²: 4bsh each) and its value (4bsh); a mask of one byte an element, the zeros it puts there, and
    two arrays of the softmax."""
    wide = 34 + 4 * newest({(0, 10): 2, (0, 11, 2): 1})
    softmax = 4 * (3 * b * n_h * s * s + 2 * b * n_h * s) + b * n_h * s * s
    return 4 * (wide * b * s * h + 4 * b * s + 2 * h) + softmax


def remat(b, s, h, n_h):
    """The block's input."""
    return 4 * b * s * h


BLOCKS = {
    "rules": ({}, rules),
    "autodiff": ({"rules": "autodiff"}, autodiff),
    "remat": ({"remat": True}, remat),
    "scanned rules": ({"scan": True}, rules),
    "scanned remat": ({"scan": True, "remat": True}, remat),
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_of_gpt2(name, shape):
    """One layer more costs the closed form more."""
    options, derived = BLOCKS[name]
    b, s, h, n_h = shape

    def measured(n_layer):
        config = gpt2.Config(n_layer, n_h, h, 16, 19)
        params = jax.eval_shape(lambda key: gpt2.init(key, config), jax.eval_shape(lambda: jax.random.key(0)))
        if options.get("scan"):
            params = jax.eval_shape(gpt2.stack, params)
        ids = spec(b, s, dtype=jnp.int32)
        return residuals(lambda p, t, u: gpt2.loss(p, t, u, config, **options), params, ids, ids).bytes

    assert measured(4) - measured(3) == derived(*shape)


def test_memory_names_the_trap_of_the_cpu():
    def f(x):
        for _ in range(3):
            x = jnp.sin(x @ x)
        return x.sum()

    plan = memory(f, spec(32, 32))
    assert plan.residuals.bytes >= 3 * 4 * 32 * 32 and plan.temporaries > 0
    assert plan.arguments >= 4 * 32 * 32
    if jax.default_backend() == "cpu":
        assert any("peak leaves the temporaries out" in note for note in plan.notes)
        assert plan.peak is None or plan.peak < plan.arguments + plan.outputs + plan.temporaries
    assert f"{plan.temporaries:,}" in str(plan)


def test_bad_input_is_named():
    with pytest.raises(TypeError, match=r"none of the 1 argument leaves .* \(dtypes: \['int32'\]\)"):
        residuals(lambda i: i * 2, spec(3, dtype=jnp.int32))


def test_a_lost_residual_is_caught():
    """The equality with the row breaks when a rule keeps one array more."""
    row, dims = TABLE["gelu"], DIMS[0]
    shapes = row.shapes(dims, jnp.float32)
    derived = evaluate(row.residuals, {**dims, "item": 4, "a": 4})
    more = lambda *args: (lambda y: y * y)(row.bound(dims)(*args))  # noqa: E731
    assert residuals(more, *shapes).bytes + residuals(more, *shapes).argument_bytes > derived


def test_memory_of_a_forward_alone_and_donation():
    f = lambda i, x: x * 2  # noqa: E731
    args = spec(64, dtype="int32"), spec(64)
    alone = memory(f, *args, backward=False)
    assert alone.residuals is None and "residuals" not in str(alone)
    assert (alone.outputs, alone.aliased, alone.host) == (256, 0, 0)
    donated = memory(f, *args, backward=False, donate_argnums=1)
    assert donated.aliased == 256 and donated.device == alone.device - 256
    both = memory(lambda x: jnp.sin(x) * x, spec(64), donate_argnums=0)
    assert both.residuals is not None and both.aliased == 256
    with pytest.raises(ValueError, match="argnums=0 chooses what a backward pass differentiates"):
        memory(f, *args, backward=False, argnums=0)
    with pytest.raises(ValueError, match="argnums holds 2"):
        memory(f, *args, donate_argnums=2)


def test_offloaded_arrays_are_the_hosts_and_have_their_line():
    policy = jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=["kept"],
        names_which_can_be_offloaded=["act"],
        offload_src="device",
        offload_dst="pinned_host",
    )

    def layer(x, w):
        kept = checkpoint_name(jnp.sin(x), "kept")
        with jax.named_scope("up"):
            act = checkpoint_name(kept @ w, "act")
        return jnp.tanh(act) @ w

    offloaded = jax.checkpoint(layer, policy=policy)
    scanned = lambda x, ws: jax.lax.scan(lambda c, w: (offloaded(c, w), None), x, ws)[0]  # noqa: E731
    for f, times, w in ((offloaded, 1, spec(4, 4)), (scanned, 3, spec(3, 4, 4))):
        found = residuals(f, spec(4, 4), w)
        assert found.host_bytes == times * 64
        (host,) = [one for one in found.kept if one.host]
        line = int(host.source.rsplit(":", 1)[1])
        assert host.source.startswith(f"{__file__}:") and host.scope.endswith("up")
        assert "kept @ w" in Path(__file__).read_text().splitlines()[line - 1]
