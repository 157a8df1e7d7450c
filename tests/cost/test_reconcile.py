"""document → derived → counted → lowered → compiled: every difference has a name, and a remainder is an error."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from refgrad.cost import Unexplained, hlo, reconcile
from refgrad.cost.causes import rewriting_causes
from refgrad.cost.primitives import TABLE
from tests.work import compilations


def shape(*dims, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(dims, dtype)


X, M, WIDE = shape(6, 10), shape(8, 8), shape(10, 4)


def linear(x, w, b):
    return x @ w + b


def step(reconciliation, start, end, figure="flops"):
    (found,) = [s for s in reconciliation.steps if (s.start, s.end, s.figure) == (start, end, figure)]
    return found


def blocks(x, ws, remat):
    """Three layers by a loop over stacked weights."""

    def layer(x, w):
        return jnp.tanh(x @ w) * 0.5 + x, None

    return lax.scan(jax.checkpoint(layer) if remat else layer, x, ws)[0].sum()


def unrolled(x, ws, remat):
    def layer(x, w):
        return jnp.tanh(x @ w) * 0.5 + x

    for i in range(3):
        x = (jax.checkpoint(layer) if remat else layer)(x, ws[i])
    return x.sum()


def test_the_whole_way_down():
    """A linear layer's backward: the document leaves out the bias gradient, the derivation does not."""
    n, i, o = 6, 10, 4
    r = reconcile(
        linear,
        X,
        WIDE,
        shape(1, o),
        backward=True,
        document=4 * n * i * o,
        derived=(4 * n * i * o + (n - 1) * o, 0),
        causes={"bias gradient: n − 1 additions for each output": (n - 1) * o},
        compiled=True,
    )
    assert r.ok and not r.first_divergence
    steps = [("document", "derived"), ("derived", "counted"), ("counted", "lowered"), ("lowered", "compiled")]
    assert list(dict.fromkeys((s.start, s.end) for s in r.steps)) == steps
    assert step(r, "document", "derived").unexplained == 0
    assert step(r, "counted", "lowered").causes == {}
    assert not step(r, "lowered", "compiled").asserted
    text = str(r)
    assert "bias gradient" in text and "= compiled" in text
    plain = json.loads(json.dumps(r.json()))
    assert plain["ok"] and plain["steps"][0]["unexplained"] == 0


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("backward", [False, True])
def test_loop_and_unrolled(remat, backward):
    """Scanned and unrolled have one count, not one lowered count; both reconcile, with and without remat."""
    args = shape(6, 8), shape(3, 8, 8)
    loop = reconcile(lambda x, ws: blocks(x, ws, remat), *args, backward=backward)
    plain = reconcile(lambda x, ws: unrolled(x, ws, remat), *args, backward=backward)
    assert loop.count.matmul == plain.count.matmul
    assert plain.lowered.flops == plain.count.flops
    names = step(loop, "counted", "lowered").causes
    assert any("loop counted once instead of 3 times" in name for name in names)
    assert any("scan's own counter" in name for name in names)
    assert loop.lowered.flops < loop.count.flops


CAUSES = {
    "x·1": (lambda x: x * 1.0, (X,), {"folded: mul f32[6,10]: x·1": -60}),
    "x + 0": (lambda x: x + 0.0, (X,), {"folded: add f32[6,10]: x + 0": -60}),
    "x − 0": (lambda x: x - jnp.zeros_like(x), (X,), {"folded: sub f32[6,10]: x − 0": -60}),
    "a constant": (
        lambda x: x + jnp.ones((6, 10)) * 2.0,
        (X,),
        {"folded: mul f32[6,10]: constant": -60},
    ),
    "a constant of NumPy": (
        lambda x: x * np.ones((6, 10), np.float32),
        (X,),
        {"folded: mul f32[6,10]: x·1": -60},
    ),
    "x − 0 and x·1 beside functions of subtractions and products": (
        lambda x: lax.lgamma(x) * lax.integer_pow(x, -2) + (lax.asin(x) - jnp.zeros_like(x)) * jnp.ones_like(x),
        (X,),
        {"folded: sub f32[6,10]: x − 0": -60, "folded: mul f32[6,10]: x·1": -60},
    ),
    "what only a dead branch of a select needs": (
        lambda x: lax.select(jnp.ones((6, 10), bool), x, x * 2.0),
        (X,),
        {
            "folded: select_n f32[6,10]: select by a constant": -60,
            "folded: mul f32[6,10]: feeds only what is folded": -60,
        },
    ),
    "a select between one array and itself, named": (
        lambda x: lax.select(x.sum() > 0, x, checkpoint_name(x, "x")),
        (X,),
        {
            "folded: select_n f32[6,10]: select between equals": -60,
            "folded: gt pred[]: feeds only what is folded": -1,
            "folded: reduce_sum f32[]: feeds only what is folded": -59,
        },
    ),
    "a constant exponent": (
        lambda x: lax.pow(x, jnp.int32(3)),
        (shape(),),
        {"folded: conversion of a constant exponent": -1},
    ),
    "a constant seed": (
        lambda: jax.random.key_data(jax.random.key(7)),
        (),
        {"random_seed is lowered with literals folded": -1},
    ),
    "a print": (
        lambda x: jax.debug.print("{}", x),
        (X,),
        {"debug_print is a call of xla_ffi_python_cpu_callback, −1 each": -1},
    ),
    "float32 sums": (lambda x: x + 1.0, (shape(4097, 4097),), {"float32 sums": -1}),
    "a scan": (
        lambda x: lax.scan(lambda c, t: (c + t, None), x[0], x)[0],
        (X,),
        {
            "the scan's own counter and index": 6 + 7,
            "loop counted once instead of 6 times: jit(<lambda>)/while": -5 * 11,
            "loop counted once instead of 7 times: jit(<lambda>)/while": -6,
        },
    ),
    "no causes": (lambda x: jnp.exp(x) @ x.T, (X,), {}),
}


@pytest.mark.parametrize("name", CAUSES)
def test_causes_of_the_lowering(name):
    f, args, causes = CAUSES[name]
    assert step(reconcile(f, *args), "counted", "lowered").causes == causes


@pytest.mark.parametrize("f", (lax.lgamma, lax.asin, lambda x: lax.integer_pow(x, -2)), ids=("lgamma", "asin", "power"))
def test_a_function_of_many_instructions_in_a_dead_branch(f):
    """JAX 0.12 lowers lgamma as a function, whose call remains; the others go."""
    assert reconcile(lambda x: lax.select(jnp.ones((6, 10), bool), x, f(x)), X).ok


def test_transcendentals_have_their_own_causes():
    r = reconcile(lambda x, p: lax.cond(p, jnp.exp, lambda z: z * z + z, x), X, shape(dtype=jnp.bool_))
    (name,) = step(r, "counted", "lowered", "transcendentals").causes
    assert "its own costliest branch" in name
    constant = reconcile(lambda x: x * jnp.exp(jnp.zeros(10))[None], X)
    assert step(constant, "counted", "lowered", "transcendentals").unexplained == 0


def test_an_unrolled_scan_and_nested_loops():
    def program(x):
        def outer(c, t):
            return lax.fori_loop(0, 5, lambda i, z: z * t, c), None

        return lax.scan(outer, x[0], x, unroll=2)[0]

    r = reconcile(program, X)
    assert r.count.flops == 6 * 5 * 10 and r.ok


def test_a_while_of_unknown_length_is_one_trip_in_both():
    r = reconcile(lambda x: lax.while_loop(lambda z: z.sum() < 9.0, lambda z: z * 2.0, x), X)
    assert step(r, "counted", "lowered").causes == {} and r.count.per_trip


def test_a_reduction_that_is_not_gone_is_not_named():
    """The gradient of a cumulative sum is one of ones, constant, which the lowering leaves as it is."""
    r = reconcile(jax.grad(lambda x: jnp.cumsum(x, 0).sum()), X)
    assert r.count.flops == r.lowered.flops and step(r, "counted", "lowered").causes == {}


def test_an_interpreted_kernel_is_a_program_of_its_own():
    """The kernel does its body times its grid; the interpreter's loop over the grid does more."""

    def body(i, o):
        o[...] = i[...] * 2.0 + 1.0

    block = pl.BlockSpec((4, 128), lambda i: (i, 0))
    options = {"grid": (2,), "in_specs": [block], "out_specs": block, "interpret": True}
    r = reconcile(pl.pallas_call(body, out_shape=shape(8, 128), **options), shape(8, 128))
    assert r.count.flops == 2 * 8 * 128
    assert any(name.startswith("pallas_call is a loop of its own") for name in step(r, "counted", "lowered").causes)


def test_shard_map_counts_one_device():
    mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,))

    def local(a):
        return lax.psum(jnp.tanh(a) * 2.0, "d")

    mapped = jax.shard_map(local, mesh=mesh, in_specs=P("d"), out_specs=P())
    r = reconcile(mapped, shape(8, 16))
    causes = step(r, "counted", "lowered").causes
    assert any("one device" in name for name in causes) and any("marks a sharding" in name for name in causes)


LIBRARY = {
    "cholesky": (lambda a: lax.linalg.cholesky(a, symmetrize_input=False), "potrf"),
    "lu": (lambda a: lax.linalg.lu(a)[0], "getrf"),
    "qr": (jnp.linalg.qr, "geqrf"),
    "eigh": (jnp.linalg.eigvalsh, "syevd"),
    "svd": (jnp.linalg.svd, "gesdd"),
    "triangular_solve": (lambda a: jnp.linalg.solve(a, a), "trsm"),
}


@pytest.mark.parametrize("primitive", LIBRARY)
def test_a_library_call_stands_for_its_primitive(primitive):
    f, target = LIBRARY[primitive]
    causes = step(reconcile(f, M), "counted", "lowered").causes
    assert any(name.startswith(f"{primitive} is a call of") and target in name for name in causes)


@pytest.mark.parametrize("primitive", ["dot_general", "add", "tanh", "reduce_sum"])
def test_a_cost_wrong_by_one_flop_is_caught(primitive, monkeypatch):
    """Planted: one rule of the count says one FLOP too many."""

    def program(x, w):
        return (jnp.tanh(x @ w) + 1.0).sum()

    assert reconcile(program, X, WIDE).ok
    true = TABLE[primitive]

    def wrong(eqn):
        work = true(eqn)
        return work._replace(elementwise=work.elementwise + 1)

    monkeypatch.setitem(TABLE, primitive, wrong)
    with pytest.raises(Unexplained, match="-1 flops from counted to lowered") as caught:
        reconcile(program, X, WIDE)
    assert primitive in caught.value.reconciliation.first_divergence
    assert "UNEXPLAINED" in str(caught.value) and not caught.value.reconciliation.ok


def test_a_transcendental_too_many_is_caught(monkeypatch):
    true = TABLE["tanh"]
    monkeypatch.setitem(TABLE, "tanh", lambda eqn: true(eqn)._replace(transcendental=true(eqn).transcendental + 1))
    with pytest.raises(Unexplained, match="-1 transcendentals"):
        reconcile(lambda x: jnp.tanh(x), X)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"derived": (481, 0)}, r"-1 flops from derived to counted"),
        ({"derived": (480, 1)}, r"-1 transcendentals from derived to counted"),
        ({"derived": (480, 0), "document": 479}, r"\+1 flops from document to derived"),
        ({"derived": (480, 0), "document": 470, "causes": {"bias": 9}}, r"\+1 flops from document to derived"),
        ({"document": 481}, r"-1 flops from document to counted"),
    ],
)
def test_a_wrong_derivation_is_caught(given, says):
    assert reconcile(lambda x, w: x @ w, X, WIDE, derived=(480, 0), document=480).ok
    with pytest.raises(Unexplained, match=says):
        reconcile(lambda x, w: x @ w, X, WIDE, **given)


def test_causes_without_a_document():
    with pytest.raises(ValueError, match="give document"):
        reconcile(jnp.tanh, X, causes={"bias": 1})


def test_the_compiled_step_explains_without_asserting():
    r = reconcile(lambda x: (x * 2.0) * 3.0 - x / x, X, compiled=True)
    assert r.ok and r.compiled is not None
    down = step(r, "lowered", "compiled")
    assert down.before + sum(down.causes.values()) + down.unexplained == down.after


def test_nothing_is_compiled():
    """The verify command reconciles every operation: XLA counts what is lowered."""
    with compilations() as programs:
        reconcile(lambda x, w, b: jnp.tanh(linear(x, w, b)), X, WIDE, shape(1, 4), backward=True)
    assert not programs


TWICE = """HloModule m

%again (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %e = f32[8]{0} negate(%p), metadata={op_name="jit(f)/neg"}
}

%too (q: f32[8]) -> f32[8] {
  %q = f32[8]{0} parameter(0)
  ROOT %d = f32[8]{0} negate(%q), metadata={op_name="jit(f)/neg"}
}

ENTRY %main (x: f32[8]) -> (f32[8], f32[8]) {
  %x = f32[8]{0} parameter(0)
  %one = f32[8]{0} fusion(%x), kind=kLoop, calls=%again
  %two = f32[8]{0} fusion(%x), kind=kLoop, calls=%too
  ROOT %out = (f32[8], f32[8]) tuple(%one, %two)
}
"""


def test_what_fusions_compute_again_is_named():
    compiled = hlo.cost(TWICE)
    once = [row for row in compiled.rows if row.computation != "too"]
    assert rewriting_causes(once, compiled.rows) == [("compiler: negate computed again in other fusions", 8, 0)]
    assert rewriting_causes([], once) == [("compiler: negate added", 8, 0)]
    assert rewriting_causes(once, []) == [("compiler: negate removed", -8, 0)]
