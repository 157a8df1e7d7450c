"""A structured primitive that JAX does not have, registered by one row: every instrument descends into it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import ClosedJaxpr, Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

from refgrad import cost, verify
from refgrad.jaxpr import rebuild
from refgrad.jaxpr.calls import TABLE, Bodies, Body, Form, Structured, call
from refgrad.jaxpr.dependence import dependence, evaluate

TRIPS = 3
X = jnp.linspace(0.3, 1.7, 6, dtype=jnp.float32)


def planted(name, impl):
    """A primitive whose one parameter is a program, and whose derivative and batching are those of `impl`."""
    primitive = Primitive(name)
    primitive.multiple_results = True

    def run(*xs, program):
        return list(impl(jaxpr_as_fun(program), xs))

    primitive.def_impl(run)
    primitive.def_abstract_eval(lambda *xs, program: program.out_avals)
    mlir.register_lowering(primitive, mlir.lower_fun(run, multiple_results=True))

    def jvp(primals, tangents, *, program):
        moved = tuple(map(ad.instantiate_zeros, tangents))
        outputs = primitive.bind(*primals, program=program)
        return outputs, jax.jvp(partial(run, program=program), tuple(primals), moved)[1]

    def batch(values, axes, *, program):
        out = jax.vmap(partial(run, program=program), in_axes=axes)(*values)
        return out, [0] * len(out)

    ad.primitive_jvps[primitive] = jvp
    batching.primitive_batchers[primitive] = batch
    return primitive


once_p = planted("planted_call", lambda f, xs: f(*xs))
thrice_p = planted("planted_loop", lambda f, xs: lax.fori_loop(0, TRIPS, lambda _, c: f(*c), list(xs)))


def loop(eqn):
    every = tuple(range(len(eqn.invars)))
    body = Body(eqn.params["program"], every, every, trips=TRIPS, carry=len(every))
    return Bodies((body,), Form.SCAN)


ROWS = {
    "planted_call": Structured(call(lambda eqn: eqn.params["program"]), rebuild.retrace),
    "planted_loop": Structured(loop, rebuild.retrace),
}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    for name, row in ROWS.items():
        monkeypatch.setitem(TABLE, name, row)


def run(primitive, f):
    def wrapped(*xs):
        program = jax.make_jaxpr(lambda *xs: list(f(*xs)))(*xs)
        assert isinstance(program, ClosedJaxpr)
        return primitive.bind(*xs, program=program)

    return wrapped


def ruled(factor):
    """A sine whose backward is off by a factor."""
    op = jax.custom_vjp(jnp.sin)
    op.defvjp(lambda x: (jnp.sin(x), x), lambda x, dy: (factor * dy * jnp.cos(x),))
    return op


PRIMITIVES = {"a call": once_p, "a loop": thrice_p}


@pytest.mark.parametrize("primitive", PRIMITIVES.values(), ids=PRIMITIVES)
def test_check_takes_its_truth_from_inside(primitive):
    for factor, ok in ((1.0, True), (1.001, False)):
        op = ruled(factor)
        report = verify.check(lambda x, op=op: run(primitive, lambda x: [op(x)])(x)[0], X, order=1)
        assert report.ok is ok, report


@pytest.mark.parametrize("primitive", PRIMITIVES.values(), ids=PRIMITIVES)
def test_blame_judges_the_calls_inside_one_by_one(primitive):
    right, wrong = ruled(1.0), ruled(1.001)
    found = verify.blame(lambda x: run(primitive, lambda x: [wrong(right(x))])(x)[0].sum(), X)
    trips = TRIPS if primitive is thrice_p else 1
    assert [v.verdict for v in found] == ["ok", "wrong"] * trips
    assert not found.unseen
    assert {v.trips for v in found} == ({f"planted_loop[{i}]" for i in range(TRIPS)} if trips > 1 else {""})


@pytest.mark.parametrize("primitive", PRIMITIVES.values(), ids=PRIMITIVES)
def test_count_prices_what_runs_inside(primitive):
    def body(x, w):
        return [jnp.tanh(x @ w), w]

    inside = cost.count(body, jnp.ones((4, 4)), jnp.ones((4, 4)))
    counted = cost.count(run(primitive, body), jnp.ones((4, 4)), jnp.ones((4, 4)))
    trips = TRIPS if primitive is thrice_p else 1
    assert (counted.matmul, counted.transcendental) == (trips * 2 * 4**3, trips * 16)
    assert counted.matmul == trips * inside.matmul and not counted.unknown


def test_residuals_name_the_equation_inside_that_makes_them():
    def f(x):
        with jax.named_scope("outer"):
            (y,) = run(once_p, lambda x: [jnp.tanh(x) * 2])(x)
        return y * x

    kept = {k.primitive for k in cost.residuals(f, X).kept if k.scope == "outer"}
    assert "mul" in kept and "planted_call" not in kept


def test_dependence_follows_each_output():
    f = run(once_p, lambda x, y: [x + 1, y * 2])
    program = jax.make_jaxpr(f)(X, X)
    assert dependence(program, [1, 2]) == [1, 2]
    looped = jax.make_jaxpr(run(thrice_p, lambda x, y, z: [y, z, z]))(X, X, X)
    assert dependence(looped, [1, 2, 4]) == [7, 6, 4]
    first, second = evaluate(program, [X, None], [True, False])
    assert second is None
    np.testing.assert_array_equal(first, X + 1)


def test_without_its_row_the_primitive_is_opaque(monkeypatch):
    for name in ROWS:
        monkeypatch.delitem(TABLE, name)
    f = run(once_p, lambda x, y: [x + 1, y * 2])
    assert dependence(jax.make_jaxpr(f)(X, X), [1, 2]) == [3, 3]
    assert cost.count(f, X, X).flops == 2 * X.size  # by what its author has it do
