"""Calls of rules, recorded with their values wherever they run, and nothing changed for the caller."""

import dataclasses
import functools
import gc
import importlib
import weakref

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import hijax
from jax.extend.core import jaxpr_as_fun

from refgrad import verify
from refgrad.jaxpr.programs import equations
from refgrad.verify import record
from refgrad.verify.record import recorder
from refgrad.verify.record.tap import tap
from tests.lanes import fast_if
from tests.verify.scenes import SCENES, X, rule

SINE = rule(jnp.sin, jnp.cos)
WRONG = rule(jnp.sin, lambda x: 7 + 0 * x, name="wrong")
QUICKLY = {"order": 1, "properties": ["accuracy"]}


def total(f):
    return lambda *args: sum(jnp.sum(y) for y in jax.tree.leaves(f(*args)))


AROUND = {
    "forward": lambda f: f,
    "grad": lambda f: jax.grad(total(f)),
    "jit of grad": lambda f: jax.jit(jax.grad(total(f))),
    "grad of grad": lambda f: jax.grad(total(jax.grad(total(f)))),
}


@pytest.mark.parametrize("dtype", [jnp.float32, np.float32, np.dtype("float32")], ids=repr)
def test_a_dtype_is_no_argument_to_differentiate(dtype):
    cast = jax.custom_jvp(lambda dtype, x: jnp.sin(x.astype(dtype)), nondiff_argnums=(0,))
    cast.defjvp(lambda dtype, primals, tangents: (cast(dtype, *primals), jnp.cos(primals[0]) * tangents[0]))
    with record() as seen:
        jax.jit(jax.grad(lambda x: cast(dtype, x).sum()))(X)
    (call,) = seen
    assert not seen.errors and call.args is not None and call.args[0] is dtype
    assert verify.check(cast, dtype, X, draws=1, **QUICKLY).ok


IN_PLACE = [(scene, around) for scene in SCENES for around in AROUND]


@pytest.mark.parametrize(
    ("scene", "around"), fast_if(lambda scene, around: around == "jit of grad" or scene == "scan", IN_PLACE)
)
def test_every_call_is_seen_with_values(scene, around):
    """In every place of a program and under every transformation; the results are those without a recording."""
    program = AROUND[around](SCENES[scene](SINE))
    expected = program(X)
    jax.clear_caches()
    with record() as seen:
        got = program(X)
    assert not seen.errors
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), got, expected)
    calls = [call for call in seen if call.name == "op"]
    assert calls and all(call.args is not None for call in calls)
    assert all("scenes.py:" in call.where for call in calls)


def test_the_values_are_those_of_a_call():
    with record() as seen:
        jax.jit(jax.vmap(lambda x: SINE(2 * x)))(X)
        lax.scan(lambda c, x: (SINE(c), None), X, None, length=3)
    scalar, vector = seen
    assert (scalar.signature, vector.signature) == ("f32[]", "f32[4]")
    np.testing.assert_allclose(scalar.args[0], 2 * X[0])
    np.testing.assert_allclose(vector.args[0], X)
    assert vector.calls == 1


def test_each_rule_is_checked():
    with record() as seen:
        SINE(X)
        jax.grad(total(WRONG))(X)
    outcome = seen.check(**QUICKLY)
    assert [v.status for v in outcome.verdicts] == ["ok", "wrong"] and not outcome.ok
    assert "2 rules at 2 signatures: 1 ok, 1 wrong" in str(outcome)
    assert '"status": "wrong"' in outcome.json()
    assert max(map(len, str(outcome).splitlines())) <= 100


def test_statics_trees_keywords_and_integers():
    @functools.partial(jax.custom_vjp, nondiff_argnums=(0, 2))
    def take(axis, params, mode, index, scale=2.0):
        return jnp.take(params["x"], index, axis, mode=mode) * scale

    def bwd(axis, mode, kept, ct):
        shape, index, x = kept
        return {"x": jnp.zeros(shape).at[:, index].add(ct * 2)}, None, jnp.sum(ct * x)

    def fwd(axis, params, mode, index, scale):
        return take(axis, params, mode, index, scale), (params["x"].shape, index, jnp.take(params["x"], index, axis))

    take.defvjp(fwd, bwd)
    x = jnp.arange(6.0).reshape(2, 3)
    with record() as seen:
        jax.jit(lambda p: take(1, p, index=jnp.array([2, 0]), mode="clip"))({"x": x})
        take(1, {"x": x}, "wrap", jnp.array([2, 0]))
    clip, wrap = seen
    assert clip.signature == "1, f32[2,3], 'clip', i32[2]" and "'wrap'" in wrap.signature
    assert clip.args[0] == 1 and clip.args[2] == "clip"
    np.testing.assert_array_equal(clip.args[1]["x"], x)
    assert seen.check(**QUICKLY).ok


@pytest.mark.parametrize("around", [lambda f: f, jax.jit, jax.vmap])
def test_typed_keys(around):
    """A callback cannot carry a typed key: its data is sent, and the key is made of it again."""

    @jax.custom_vjp
    def noisy(key, x):
        return x * jax.random.uniform(key)

    noisy.defvjp(lambda key, x: (noisy(key, x), key), lambda key, ct: (None, ct * jax.random.uniform(key)))
    keys = jax.random.split(jax.random.key(3), 4)
    keys = keys if around is jax.vmap else keys[0]
    with record() as seen:
        around(noisy)(keys, X if around is jax.vmap else X[0])
    (call,) = seen
    assert not seen.errors and call.signature == "key<fry>[], f32[]"
    first = jax.random.split(jax.random.key(3), 4)[0]
    np.testing.assert_array_equal(jax.random.key_data(call.args[0]), jax.random.key_data(first))
    assert seen.check(**QUICKLY).ok


@pytest.mark.parametrize("first", ["awaited", "delivered"])
def test_an_export_is_left_alone(first):
    """A program with a callback inside cannot be serialized; neither can one that was traced with it before."""
    f = jax.jit(lambda x: SINE(x) * 2)
    with record() as seen:
        if first == "delivered":
            f(X)
        exported = jax.export.export(f)(X)
        f(X)
    assert not seen.errors and seen[0].args is not None
    assert "callback" not in exported.mlir_module()
    np.testing.assert_allclose(exported.call(X), 2 * jnp.sin(X), rtol=1e-6)


@pytest.mark.parametrize("abstract", [jax.eval_shape, lambda f, x: jax.make_jaxpr(f)(x)])
def test_a_signature_first_met_abstractly(abstract):
    f = jax.jit(lambda x: SINE(x) * 2)
    with record() as seen:
        abstract(f, X)
        jax.effects_barrier()
        assert seen[0].args is None
        f(X)
    np.testing.assert_array_equal(seen[0].args[0], X)


def test_a_program_with_a_callback_inside_is_transposed():
    """Linear solvers trace an operator first, and transpose it later."""
    with record():
        traced = jax.make_jaxpr(lambda y: (tap(lambda *_: None, [y]), 2 * y)[1])(X)
        assert callbacks(jaxpr_as_fun(traced))
        (transposed,) = jax.linear_transpose(lambda y: jaxpr_as_fun(traced)(y)[0], X)(X)
    np.testing.assert_allclose(transposed, 2 * X)


def test_what_cannot_be_transposed_still_raises():
    double = jax.custom_batching.custom_vmap(lambda y: 2 * y)
    double.def_vmap(lambda size, batched, y: (2 * y, batched[0]))
    for f in (double, lax.stop_gradient):
        with record(), pytest.raises(NotImplementedError, match="Transpose rule"):
            jax.linear_transpose(lambda y, f=f: f(y), X)(X)


def test_a_signature_that_never_runs_is_counted_apart():
    with record() as seen:
        jax.eval_shape(SINE, X)
    outcome = seen.check()
    assert outcome.ok and outcome.verdicts[0].status == "not checked"
    assert "no values arrived" in outcome.verdicts[0].note


def callbacks(f):
    return [e for e in equations(jax.make_jaxpr(f)(X)) if "callback" in e.primitive.name]


def test_no_callback_is_left_behind():
    f = jax.jit(lambda x: SINE(x) * 2)
    with record():
        f(X)
        assert callbacks(f)
        jax.clear_caches()
        f(X)
        jax.effects_barrier()
        assert not callbacks(f)  # the values have arrived
        g = jax.jit(lambda x: WRONG(x) * 2)
        g(X)
    assert not callbacks(g)
    assert jax.custom_vjp.__call__.__module__.startswith("jax")


def test_callbacks_in_a_loop_are_removed_while_it_runs(monkeypatch):
    monkeypatch.setattr(recorder, "AT_ONCE", 100)
    f = jax.jit(lambda x: lax.fori_loop(0, 150, lambda i, c: SINE(c) + x, x))
    with record():
        f(X).block_until_ready()
        jax.effects_barrier()
        assert not callbacks(f)


def test_a_branch_not_taken_gives_way_to_one_that_is():
    root = rule(jnp.sqrt, lambda x: 0.5 / jnp.sqrt(x), name="root")
    f = jax.vmap(lambda x: lax.cond(x > 0, root, lambda x: x, 1 / x))  # the first lane is infinite, and not taken
    with record() as seen:
        f(jnp.array([0.0, 2.0]))
        f(jnp.array([2.0, 0.0]))
    np.testing.assert_allclose(seen[0].args[0], 0.5)


def test_zeros_give_way_to_values_that_tell_more():
    with record() as seen:
        SINE(jnp.zeros(4))
        SINE(X)
        SINE(2 * X)
    np.testing.assert_array_equal(seen[0].args[0], X)


def test_a_custom_gradient_made_at_every_call_is_one_rule():
    def square(x):
        return jax.custom_gradient(lambda x: (x**2, lambda ct: (ct * 2 * x,)))(x)

    with record() as seen:
        for _ in range(3):
            jax.grad(total(square))(X)
    assert len(seen) == 1 and "test_record.py:" in seen[0].where
    assert seen.check(**QUICKLY).ok


def test_rules_of_one_factory_are_told_apart():
    with record() as seen:
        for power in (2, 3):
            rule(lambda x, n=power: x**n, lambda x, n=power: n * x ** (n - 1))(X)
            rule(lambda x: x**power, lambda x: power * x ** (power - 1))(X)  # noqa: B023
    assert len(seen) == 3  # by the scalars that they close over, not by a default value


def test_the_rules_of_jax_are_not_recorded():
    with record() as seen:
        jax.grad(total(lambda x: jax.nn.relu(x) + jax.nn.silu(x)))(X)
        SCENES["root"](lambda x: x)(X)
    assert len(seen) == 0


def test_a_call_without_anything_to_differentiate_is_not_recorded():
    with record() as seen:
        rule(lambda x: x + 1, lambda x: x)(jnp.arange(3))
    assert len(seen) == 0


def test_a_rule_that_closes_over_traced_values():
    """It is not kept: the tracer would outlive its trace."""
    leaked = []

    def f(w):
        leaked.append(weakref.ref(w))
        op = rule(lambda x: w * x, lambda x: w)
        return op(X).sum()

    with record() as seen:
        jax.jit(f)(3.0)
    jax.clear_caches()
    gc.collect()
    assert leaked[0]() is None
    outcome = seen.check()
    assert outcome.verdicts[0].status == "not checked" and "closes over traced values" in outcome.verdicts[0].note


def test_a_rule_that_runs_only_inside_its_caller():
    mean = rule(lambda x: lax.pmean(x, "i"), lambda x: lax.pmean(x, "i"))
    with record() as seen:
        jax.vmap(mean, axis_name="i")(X)
    assert "NameError" in seen.check().verdicts[0].note


def test_the_error_of_a_wrong_call_is_the_callers():
    with record() as seen:
        for wrong in ({"y": X}, {"x": "text"}):
            with pytest.raises(TypeError):
                SINE(**wrong)
    assert len(seen) == 0


def test_a_fault_of_the_recorder_is_not_raised(monkeypatch):
    monkeypatch.setattr(recorder, "identify", lambda rule: 1 / 0)
    with record() as seen:
        np.testing.assert_allclose(SINE(X), jnp.sin(X))
    assert isinstance(seen.errors[0], ZeroDivisionError)


def test_arguments_too_large_to_keep(monkeypatch):
    monkeypatch.setattr(recorder, "LARGEST", 8)
    with record() as seen:
        SINE(X)
    assert seen[0].args is None and "larger than" in seen.check().verdicts[0].note


def test_float64_is_checked_in_float64(x64):
    with record() as seen:
        SINE(jnp.float64(0.3))
    with jax.enable_x64(False):
        outcome = seen.check(**QUICKLY)
    assert seen[0].signature == "f64[]" and outcome.ok


def test_what_is_donated_or_changed_afterwards():
    given = np.array(X)
    with record() as seen:
        x = X * 1
        SINE(x)
        jax.jit(lambda x: x + 1, donate_argnums=0)(x)
        WRONG(given)
        given[:] = 0
    for call in seen:
        np.testing.assert_array_equal(call.args[0], X)


def test_a_budget_goes_round_the_rules():
    with record() as seen:
        for shape in (2, 3):
            SINE(jnp.ones(shape))
        WRONG(X)
    outcome = seen.check(seconds=1e-9)
    assert "not checked: op at 2 signatures: the budget was used up" in str(outcome)
    verdicts = outcome.verdicts
    assert [v.rule for v in verdicts] == ["op", "wrong", "op"]
    assert all(v.note == "the budget was used up" for v in verdicts[1:])


def test_a_partial_check_says_what_it_left_out(monkeypatch):
    outcome = importlib.import_module("refgrad.verify.record.outcome")
    whole = outcome.check
    with record() as seen:
        SINE(X)
    (right,) = seen.check(**QUICKLY).verdicts
    assert (right.status, right.note) == ("ok", "")
    left_out = ("vmap", "scan")
    monkeypatch.setattr(outcome, "check", lambda *a, **how: dataclasses.replace(whole(*a, **how), left_out=left_out))
    (partial,) = seen.check(**QUICKLY).verdicts
    assert (partial.status, partial.note) == ("partial", "vmap, scan left out")


def test_equinox_names_the_users_function():
    eqx = pytest.importorskip("equinox")

    @eqx.filter_custom_vjp
    def product(a, b):
        return a * b

    product.def_fwd(lambda perturbed, a, b: (a * b, b))
    product.def_bwd(lambda b, ct, perturbed, a, _: ct * b)
    with record() as seen:
        jax.grad(lambda a: product(a, jnp.float32(3.0)))(2.0)
    assert [(call.name, "test_record.py:" in call.where) for call in seen] == [("product", True)]
    assert seen.check(**QUICKLY).ok  # by its first argument alone, which is all that may be differentiated


@pytest.mark.skipif(not hasattr(hijax, "HiPrim"), reason="JAX without HiPrim")
def test_a_hiprim():
    from tests.verify.hiprims import Sine

    with record() as seen:
        jax.jit(jax.grad(total(Sine.call)))(X)
    call = seen[0]
    assert (call.name, call.identity.kind) == ("Sine", "HiPrim") and "hiprims.py:" in call.where
    np.testing.assert_array_equal(call.args[0], X)


@pytest.mark.skipif("jax_custom_vjp3" not in jax.config.values, reason="JAX without custom_vjp3")
def test_a_call_under_custom_vjp3_is_seen_once():
    from refgrad.jaxpr.methods import flag

    with flag("jax_custom_vjp3", True), record() as seen:
        jax.jit(lambda x: SINE(x))(X)
    assert [(call.name, call.calls) for call in seen] == [("op", 1)]
    np.testing.assert_array_equal(seen[0].args[0], X)


def test_a_rule_that_counts_on_its_caller():
    """It drops a tangent that, where it is called, never comes alone."""
    second = jax.custom_jvp(lambda a, b: b)

    def second_jvp(primals, tangents):
        still = isinstance(tangents[0], jax.custom_derivatives.SymbolicZero)
        return primals[1], jnp.zeros_like(primals[1]) if still else tangents[1]

    second.defjvp(second_jvp, symbolic_zeros=True)
    with record() as seen:
        jax.jvp(lambda x: second(x, jnp.sin(x)), (X,), (X,))
    outcome = seen.check(order=1, draws=2, properties=["structure", "jvp"])
    assert len(seen) == 1 and outcome.ok, outcome
