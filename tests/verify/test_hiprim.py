"""Rules written as HiPrim: right ones pass, and a fault in any method is caught and attributed to that method."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import hijax

if not hasattr(hijax, "HiPrim"):
    pytest.skip("this version of JAX has no hijax.HiPrim", allow_module_level=True)

from refgrad.cost import count, count_backward, residuals
from refgrad.jaxpr.versions import at_least
from refgrad.verify import (
    assert_ok,
    blame,
    check,
    equivalent,
    longest_reduction,
    mutants,
    mutation_score,
    remaining_rules,
    without_rules,
)
from refgrad.verify.properties.methods import METHODS
from tests.verify.hiprims import RIGHT, WRONG, Rule, Scale, SinCos, Sine, tweaked
from tests.verify.specimens import normal, right_sine

ONLY_METHODS = {"properties": list(METHODS)}
X = normal(4)

# the methods that each of the right rules has
HAS = {
    "elementwise": {"vjp_fwd", "vjp_bwd", "jvp", "lin", "linearized", "batch", "remat"},
    "matmul": {"vjp_fwd", "vjp_bwd", "jvp", "lin", "linearized", "batch"},
    "two outputs": {"vjp_fwd", "vjp_bwd", "jvp", "lin", "linearized", "batch", "dce"},
    "trees and integers": {"vjp_fwd", "vjp_bwd", "jvp", "lin", "linearized"},
    "accumulators": {"vjp_fwd", "vjp_bwd", "accumulators", "logs"},
    "linear": {"vjp_fwd", "vjp_bwd", "jvp", "lin", "linearized", "transpose"},
}


@pytest.mark.parametrize("name", RIGHT)
def test_every_method_of_a_right_rule_passes(name):
    kind, args = RIGHT[name]
    report = check(kind.call, *args, **ONLY_METHODS)
    assert report.ok, report
    assert {row.property for row in report.rows if row.verdict == "ok"} == HAS[name]


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.slow
def test_a_right_rule_passes_every_property(name):
    kind, args = RIGHT[name]
    assert_ok(kind.call, *args)


@pytest.mark.parametrize("name", WRONG)
def test_a_planted_fault_is_caught_and_attributed(name):
    red, method, kind, args = WRONG[name]
    if red == "dce" and not at_least((0, 12)):
        pytest.skip("before JAX 0.12, jit does not ask a rule for less than all of it")
    report = check(kind.call, *args, **ONLY_METHODS)
    assert red in {row.property for row in report.failures}, report
    assert method in report.where[0] and "hiprims.py:" in report.where[0]
    if red != "dce":  # every jit drops dead code: a wrong `dce` spoils whatever is compiled
        assert all(method in row.where for row in report.failures), report


def test_a_wrong_backward_beside_a_right_jvp():
    report = check(WRONG["vjp_bwd: sign"][2].call, X, **ONLY_METHODS)
    (row,) = (row for row in report.failures if row.property == "jvp")
    assert row.note == "differs from reverse mode: the backward is wrong"
    with pytest.raises(AssertionError, match=r"rule: .*hiprims.py:\d+ \(vjp_bwd_retval\)"):
        assert_ok(WRONG["vjp_bwd: sign"][2].call, X, **ONLY_METHODS)


def test_a_method_that_is_missing_is_one_line():
    report = check(Scale.call, *RIGHT["accumulators"][1])
    assert report.ok
    notes = [row.note for row in report.rows if row.verdict == "not available"]
    for note in ("no `jvp`: jax.jvp raises", "no `lin`: jax.linearize raises", "no `batch`: vmap raises"):
        assert any(note in n for n in notes)
    assert len([row for row in report.of("vmap")]) == 1


class OnlyForward(Rule):
    """No reverse mode."""

    def expand(self, x):
        return jnp.sin(x)

    jvp = Sine.jvp


def test_a_rule_without_reverse_mode():
    report = check(OnlyForward.call, X)
    assert report.ok
    assert report.of("structure")[0].note == "no `vjp_fwd`: grad raises"
    assert {row.property for row in report.rows if row.verdict == "ok"} == {"jvp"}
    (call,) = blame(OnlyForward.call, X)
    assert (call.verdict, call.note) == ("not available", "no `vjp_fwd`: grad raises")
    wrong = tweaked(OnlyForward, "jvp", lambda r: (r[0], -r[1]))
    assert {row.property for row in check(wrong.call, X).failures} == {"jvp"}


class Hinge(Rule):
    """Two methods that choose differently at the kink."""

    def expand(self, x):
        return jnp.maximum(x, 0)

    def vjp_fwd(self, nzs, x):
        return self(x), x

    def vjp_bwd_retval(self, x, g):
        return (jnp.where(x > 0, g, 0),)

    def jvp(self, primals, tangents):
        (x,), (t,) = primals, tangents
        return self(x), jnp.where(x >= 0, t, 0)


def test_a_kink_is_left_aside():
    x = jnp.array([-1.0, 0.0, 2.0], jnp.float32)
    assert check(Hinge.call, x, **ONLY_METHODS).ok
    wrong = tweaked(Hinge, "jvp", lambda r: (r[0], 2 * r[1]))
    assert {row.property for row in check(wrong.call, x, **ONLY_METHODS).failures} == {"jvp"}


def test_an_object_is_not_run_at_other_types():
    """JAX runs it silently; truth is then found at its own types, and another shape is an error."""
    sine = Sine(X)
    assert check(sine, X, properties=["accuracy", "jvp"]).ok
    assert check(lambda x: 2 * sine(x), X, properties=["accuracy"]).ok
    with pytest.raises(TypeError, match=r"Sine is made for float32\[4\], and called at float32\[5\]"):
        check(sine, normal(5))


def deep(kind):
    """Calls inside scan, checkpoint and jit, the last one of `kind`; under a checkpoint JAX would use its `jvp`."""

    def f(x):
        x = jax.lax.scan(lambda c, _: (Sine.call(c), None), x, None, length=2)[0]
        return jnp.sum(jax.jit(kind.call)(jax.checkpoint(Sine.call)(x)) ** 2)

    return f


WRONG_SINE = WRONG["vjp_bwd: factor"][2]


def test_blame_judges_each_call_in_place():
    verdicts = blame(deep(WRONG_SINE), X)
    assert [(v.rule, v.verdict) for v in verdicts] == [*[("Sine", "ok")] * 3, ("WrongSine", "wrong")]
    assert "vjp_bwd_retval" in verdicts.guilty[0].backward and "hiprims.py:" in verdicts.guilty[0].backward
    assert verdicts.unseen == ()
    report = check(deep(WRONG_SINE), X, properties=["accuracy"])
    assert not report.ok and "vjp_bwd_retval" in report.where[0]


@pytest.mark.parametrize("jvp", [False, True])
def test_without_rules(jvp):
    f = deep(WRONG_SINE)
    plain = lambda x: jnp.sum(jnp.sin(jnp.sin(jnp.sin(jnp.sin(x)))) ** 2)  # noqa: E731
    np.testing.assert_allclose(jax.grad(without_rules(f, jvp=jvp))(X), jax.grad(plain)(X), rtol=1e-6)
    assert not np.allclose(jax.grad(f)(X), jax.grad(plain)(X), rtol=1e-5)
    assert remaining_rules(f, X) == []
    (applied,) = remaining_rules(jax.grad(lambda x: WRONG_SINE.call(x).sum()), X)
    assert "vjp_fwd" in applied and "hiprims.py:" in applied


def test_the_same_cost_as_a_custom_vjp():
    assert longest_reduction(Scale.call, *RIGHT["accumulators"][1]) == (1, 4)
    assert count(Sine.call, X).flops == count(right_sine, X).flops
    assert count_backward(Sine.call, X).flops == count_backward(right_sine, X).flops
    kept, same = residuals(Sine.call, X), residuals(right_sine, X)
    assert (kept.kept, kept.arguments) == (same.kept, same.arguments)


def test_mutants_are_new_classes_and_all_are_caught():
    names = [m.name for m in mutants(Sine.call, X)]
    assert {"x: negated", "x: zeroed", "jvp: negated", "linearized: negated"} <= set(names)
    assert len(names) == len(set(names)) == 15
    for mutant in mutants(Sine.call, X)[:2]:
        np.testing.assert_array_equal(mutant.function(X), Sine.call(X))
        assert not equivalent(mutant, Sine.call, X)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["elementwise", "accumulators"])
def test_tally(name):
    kind, args = RIGHT[name]
    assert set(mutation_score(kind.call, *args).values()) == {"caught"}


def test_mutants_inside_a_program():
    found = {m.name: m.function for m in mutants(lambda x: jnp.sum(SinCos.call(x)[0]), X)}
    right = jax.grad(lambda x: jnp.sum(jnp.sin(x)))(X)
    np.testing.assert_allclose(jax.grad(found["x: negated"])(X), -right, rtol=1e-6)
