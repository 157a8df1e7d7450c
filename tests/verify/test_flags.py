"""`jax_custom_vjp3`, `jax_custom_jvp3` and `jax_remat3`, alone and together: every instrument sees the same rules."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import hijax

if not hasattr(hijax, "HiPrim"):
    pytest.skip("this version of JAX has no hijax.HiPrim", allow_module_level=True)

from refgrad.cost import count, count_backward, residuals
from refgrad.jaxpr.programs import equations
from refgrad.jaxpr.rules import rule_of
from refgrad.verify import blame, check, longest_reduction, mutants, mutation_score, remaining_rules, without_rules
from tests.lanes import fast_if
from tests.verify.scenes import SCENES, X, rule, trips
from tests.verify.specimens import RIGHT, matmul, normal, right_sine, sine, softsign, wrong_softsign

FLAGS = ("jax_custom_vjp3", "jax_custom_jvp3", "jax_remat3")
SETS = [(flag,) for flag in FLAGS] + [FLAGS]
ARGS = normal(3, 4), normal(4, 2)
WRONG_SINE = sine(lambda x, g: (1.001 * g * jnp.cos(x),))


def under(flags, f, *args):
    """`f(*args)` with these flags alone on."""
    before = {flag: getattr(jax.config, flag) for flag in FLAGS}
    try:
        for flag in FLAGS:
            jax.config.update(flag, flag in flags)
        return f(*args)
    finally:
        for flag, value in before.items():
            jax.config.update(flag, value)


def in_program(op):
    """A right rule and `op` inside jit, scan and checkpoint."""

    def f(x):
        x = jax.lax.scan(lambda c, _: (jax.nn.relu(right_sine(c)), None), x, None, length=2)[0]
        return jnp.sum(jax.jit(op)(jax.checkpoint(softsign)(x)) ** 2)

    return f


def rules_in(f):
    found = [rule for rule in map(rule_of, equations(jax.make_jaxpr(f)(X))) if rule is not None]
    return [(r.kind, r.name, r.location, r.of_jax) for r in found]


def rows(report):
    return [(r.property, r.argument, r.verdict) for r in report.rows]


PROPERTIES = {"properties": ["structure", "accuracy", "eager", "checkpoint"], "draws": 2}
INSTRUMENTS = {
    "the rules of a program": lambda: rules_in(in_program(WRONG_SINE)),
    "check": lambda: rows(check(matmul, *ARGS, **PROPERTIES)),
    "check of a wrong rule": lambda: (lambda r: (rows(r), r.where, r.facts))(check(WRONG_SINE, X, **PROPERTIES)),
    "check of a wrong custom_jvp": lambda: (lambda r: (rows(r), r.where))(check(wrong_softsign, X, **PROPERTIES)),
    "blame": lambda: [
        (v.rule, v.backward, v.trips, v.shapes, v.verdict) for v in blame(in_program(WRONG_SINE), X).rows
    ],
    "without_rules": lambda: np.asarray(jax.grad(without_rules(in_program(WRONG_SINE), jvp=True))(X)).tolist(),
    "remaining_rules": lambda: remaining_rules(jax.grad(lambda x: WRONG_SINE(x).sum()), X)[:1],
    "mutants": lambda: [m.name for m in mutants(matmul, *ARGS)],
    "mutation_score": lambda: mutation_score(right_sine, X, draws=1),
    "longest_reduction": lambda: longest_reduction(matmul, *ARGS),
    "count": lambda: count(in_program(right_sine), X).flops,
    "count_backward": lambda: count_backward(matmul, *ARGS).flops,
    "residuals": lambda: (lambda r: (r.kept, r.arguments))(residuals(matmul, *ARGS)),
}


@functools.cache
def without_flags(name):
    return under((), INSTRUMENTS[name])


@pytest.mark.parametrize("flags", fast_if(lambda flags: flags == FLAGS, [(flags,) for flags in SETS]), ids="+".join)
@pytest.mark.parametrize("name", INSTRUMENTS)
def test_an_instrument_sees_the_same_rule(name, flags):
    assert under(flags, INSTRUMENTS[name]) == without_flags(name)


def test_what_the_instruments_see():
    """The comparisons above are of something."""
    kinds = [(kind, name, of_jax) for kind, name, _, of_jax in under(FLAGS, INSTRUMENTS["the rules of a program"])]
    assert ("custom_vjp", "sin", False) in kinds and ("custom_jvp", "softsign", False) in kinds
    assert ("custom_jvp", "relu", True) in kinds
    _, where, facts = under(FLAGS, INSTRUMENTS["check of a wrong rule"])
    assert "test_flags.py" in where[0] and "rules" not in facts
    assert {"wrong", "ok"} <= {row[-1] for row in under(FLAGS, INSTRUMENTS["blame"])}


@pytest.mark.parametrize("scene", SCENES)
def test_the_plain_forward_is_differentiated(scene):
    wrong = rule(jnp.sin, lambda x: 7 + 0 * x)
    total = lambda f: lambda x: sum(jnp.sum(y) for y in jax.tree.leaves(f(x)))  # noqa: E731
    got = under(FLAGS, jax.grad(total(without_rules(SCENES[scene](wrong)))), X)
    np.testing.assert_allclose(got, jax.grad(total(SCENES[scene](jnp.sin)))(X), rtol=2e-6)
    assert under(FLAGS, remaining_rules, SCENES[scene](wrong), X) == []


def test_forward_mode_through_a_loop():
    plain = without_rules(trips(rule(jnp.sin, lambda x: 7 + 0 * x)))
    tangent = under(FLAGS, lambda: jax.jvp(plain, (X,), (X,))[1])
    np.testing.assert_allclose(tangent, jax.jvp(trips(jnp.sin), (X,), (X,))[1], rtol=1e-6)


@pytest.mark.parametrize("name", ["nondiff_argnums", "scalar", "key argument", "callback", "symbolic zeros"])
def test_an_object_may_be_made_under_another_flag(name):
    f, args = RIGHT[name]
    assert under(FLAGS, lambda: check(f, *args, properties=["structure", "accuracy"], draws=1)).ok

    def remade():
        again = jax.custom_vjp(f.fun, nondiff_argnums=f.nondiff_argnums)
        again.defvjp(f.fwd, f.bwd, symbolic_zeros=f.symbolic_zeros)
        return again

    made = under(FLAGS, remade)
    assert under((), lambda: check(made, *args, properties=["structure", "accuracy"], draws=1)).ok


# What custom_vjp functions of newer versions can do beside returning cotangents


def scaled(method, *parts, **settings):
    """x·s with a rule defined by the given method of `custom_vjp`."""
    op = jax.custom_vjp(lambda x, s: x * s)
    getattr(op, method)(*parts, **settings)
    return op


def fwd(x, s):
    return x * s, (x, s)


def bwd(kept, g):
    return g * kept[1], jnp.sum(g * kept[0])


def accumulate(kept, g, dx, ds):
    dx.accum(g * kept[1])
    ds.accum(jnp.sum(g * kept[0]))


def accumulate_twice(kept, g, dx, ds):
    accumulate(kept, g, dx, ds)
    ds.accum(jnp.sum(g * kept[0]))


def forget(kept, g, dx, ds):
    dx.accum(g * kept[1])


def overwrite(kept, g, dx, ds):
    ds.accum(jnp.sum(g * kept[0]))
    if isinstance(dx, hijax.RefAccum) and dx.ref is not None:
        dx.ref[...] = g * kept[1]
    else:
        dx.accum(g * kept[1])


def log(kept, g):
    return bwd(kept, g), {"norm": jnp.sum(g * g)}


def remake(kept, x, s):
    return x * s, (x, s)


def remake_another(kept, x, s):
    return x * s, (x, 1.01 * s)


SCALE = normal(4, seed=2), jnp.float32(1.5)


@pytest.mark.skipif(not hasattr(jax.custom_vjp, "defvjp_with_accums"), reason="no custom_vjp.defvjp_with_accums")
@pytest.mark.parametrize("flags", [(), FLAGS], ids=["off", "on"])
def test_accumulators(flags):
    names = ["accuracy", "accumulators"]
    run = lambda backward: under(  # noqa: E731
        flags, lambda: check(scaled("defvjp_with_accums", fwd, backward), *SCALE, properties=names, draws=2)
    )
    right = run(accumulate)
    assert right.ok and right.of("accumulators"), right
    # without the flag JAX hands over values alone, and adds these to a reference itself
    faults = {accumulate_twice: "accuracy", forget: "accuracy"} | ({overwrite: "accumulators"} if flags else {})
    for backward, red in faults.items():
        report = run(backward)
        assert red in {row.property for row in report.failures}, report
        assert f"({backward.__name__})" in report.where[0]


@pytest.mark.skipif(not hasattr(jax.custom_vjp, "defvjp_with_logs"), reason="no custom_vjp.defvjp_with_logs")
@pytest.mark.parametrize("flags", [(), FLAGS], ids=["off", "on"])
def test_logs(flags):
    op = scaled("defvjp_with_logs", fwd, log)
    report = under(flags, lambda: check(op, *SCALE, properties=["accuracy", "logs"], draws=2))
    assert report.ok
    assert {row.note for row in report.of("logs")} == {"logged: norm"}
    assert set(under(flags, mutation_score, op, *SCALE).values()) == {"caught"}


@pytest.mark.skipif(not hasattr(jax.custom_vjp, "defremat"), reason="no custom_vjp.defremat")
def test_defremat():
    def run(remat):
        op = scaled("defremat", fwd, remat, bwd)
        return under(FLAGS, lambda: check(op, *SCALE, properties=["accuracy", "remat"], draws=2))

    right, wrong = run(remake), run(remake_another)
    assert right.ok and right.of("remat"), right
    assert "accuracy" in {row.property for row in wrong.failures}  # outside a checkpoint, too


@pytest.mark.skipif(not hasattr(jax.custom_vjp, "defremat"), reason="no custom_vjp.defremat")
def test_defremat_beside_defvjp():
    """Outside a checkpoint the rule is another one, and right."""
    op = scaled("defvjp", fwd, bwd)
    op.defremat(fwd, remake_another, bwd)
    report = under(FLAGS, lambda: check(op, *SCALE, properties=["accuracy", "remat"], draws=2))
    assert {row.property for row in report.failures} == {"remat"}
    assert "(remake_another)" in report.where[0]


@pytest.mark.parametrize("flags", [(), FLAGS], ids=["off", "on"])
def test_generic_batching(flags):
    try:
        op = scaled("defvjp", fwd, bwd, generic_batching=True)
    except TypeError:
        pytest.skip("no generic_batching= of custom_vjp.defvjp")
    report = under(flags, lambda: check(op, *SCALE, properties=["accuracy", "batch"], draws=2))
    assert report.ok and report.of("batch"), report
