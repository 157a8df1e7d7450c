"""A check that says nothing is not ok, nor is a function that changes; ranges hold while values are swept."""

import jax.numpy as jnp
import numpy as np
import pytest

from refgrad.jaxpr.versions import custom_vjp
from refgrad.verify import assert_ok, check, sizes

FEW = {"properties": ("structure", "accuracy"), "draws": 1, "order": 1}
X = jnp.asarray([0.5, -1.5, 2.0])


@custom_vjp
def flat(x):
    return jnp.ones(3)


flat.defvjp(lambda x: (flat.fun(x), None), lambda _, ct: (jnp.zeros(3),))


@custom_vjp
def log(x):
    return jnp.log(x)


log.defvjp(lambda x: (jnp.log(x), x), lambda x, ct: (ct / x,))
EMPTY = {
    "None": (lambda x: None, X, "it returns no floating"),
    "integers": (lambda x: jnp.arange(3), X, "it returns no floating"),
    "a constant": (lambda x: jnp.ones(3), X, "no output depends on x"),
    "a rule of one": (flat, X, "no output depends on x"),
    "no entries": (lambda x: x * 2, jnp.zeros((0, 3)), "every floating argument has size 0"),
    "no results": (lambda x: x[:0] * 2, X, "every floating output has size 0"),
    "NaN": (lambda x: jnp.sum(jnp.arccos(x + 10)), X, "its value is NaN at 1 of 1 entries"),
}


@pytest.mark.parametrize("what", EMPTY)
def test_a_check_of_nothing_is_not_ok(what):
    f, x, reason = EMPTY[what]
    report = check(f, x, **FEW)
    assert not report.ok and report.status == "nothing to check" and reason in report.nothing and not report.rows
    assert "nothing to check" in str(report) and reason in report.json()
    with pytest.raises(AssertionError, match="nothing to check"):
        assert_ok(f, x, **FEW)


def test_a_gradient_of_zeros_is_something():
    assert check(lambda x: jnp.round(x) * 2, X, **FEW).ok
    assert check(lambda x, y: x * 2 + jnp.zeros(0).sum(), X, jnp.zeros(0), **FEW).ok


def test_sizes_of_zero_are_still_tried(monkeypatch):
    monkeypatch.setattr(sizes, "SIZES", (2,))
    report = check(log, "f32[b]>0", sweep=True, **FEW)
    assert report.ok and report.facts["sizes"] == "b=3; 3 others hold"


RESULTS = {"str": lambda x: "x", "object": lambda x: {"a": x, "b": object()}, "function": lambda x: lambda: x}


@pytest.mark.parametrize("kind", RESULTS)
def test_what_is_no_array_is_named(kind):
    with pytest.raises(TypeError, match=f"returns a value of type {kind}"):
        check(RESULTS[kind], X, **FEW)


def test_a_function_that_changes_is_not_a_wrong_rule():
    rng = np.random.default_rng(0)
    report = check(lambda x: x * float(rng.normal()), X, **FEW)
    assert not report.ok and "it is not deterministic" in report.causes[0] and len(report.rows) == 1


def test_values_outside_of_a_range_are_not_tried():
    @custom_vjp
    def positive(x):
        return jnp.sqrt(x * x)

    positive.defvjp(lambda x: (positive.fun(x), None), lambda _, ct: (ct,))
    assert check(positive, "f32[3]>0", sweep=True, **FEW).ok
    assert not check(positive, "f32[3]>-1", sweep=True, **FEW).ok
