"""Statements by the author of a rule: arguments by keyword and position, tolerance, intentions, seconds."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refgrad.verify import assert_ok, blame, check, clock, intents
from tests.lanes import fast_if

FIRST = {"properties": ("structure", "accuracy", "linearity"), "draws": 2}
MOST = {"properties": ("structure", "accuracy", "linearity", "second_order"), "draws": 2}
X = jnp.asarray(np.random.default_rng(0).standard_normal((3, 4)), jnp.float32)
W = jnp.asarray(np.random.default_rng(1).standard_normal((4, 2)), jnp.float32)


def rule(forward, backward):
    f = jax.custom_vjp(forward)
    f.defvjp(lambda *args: (forward(*args), args), backward)
    return f


def dense(x, w, scale=1.0):
    return scale * (x @ w)


DROPS_W = rule(dense, lambda r, g: (r[2] * g @ r[1].T, jnp.zeros_like(r[1]), jnp.sum(g * (r[0] @ r[1]))))
OFF = rule(jnp.sin, lambda r, g: (g * (jnp.cos(r[0]) + 1e-4),))


@pytest.mark.parametrize("f", [DROPS_W, lambda x, w, scale=1.0: DROPS_W(x, w, scale)], ids=["rule", "function"])
def test_keywords_are_differentiated_and_named(f):
    report = check(f, X, kwargs={"w": W, "scale": jnp.float32(2)}, **FIRST)
    assert report.causes == ("the rule always returns 0 for w",)
    assert {row.argument for row in report.rows} >= {"x", "w", "scale"}
    assert not blame(f, X, kwargs={"w": W}).ok
    assert check(f, X, W, argnums=0, **FIRST).ok and check(f, X, W, argnums=(-2,), kwargs={"scale": 3.0}, **FIRST).ok
    assert blame(f, X, W, argnums=0).ok and not blame(f, X, W, argnums=1).ok


def test_keyword_only_arguments_and_trees():
    def f(x, *, params, train=False):
        return DROPS_W(x, params["w"]) * (2.0 if train else 1.0)

    report = check(f, X, kwargs={"params": {"w": W}, "train": True}, **FIRST)
    assert report.causes == ("the rule always returns 0 for params['w']",)
    assert check(f, X, kwargs={"params": {"w": W}, "train": True}, argnums=0, **FIRST).ok


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"argnums": 3}, "argnums holds 3, but there are 2 positional arguments: choose from -2 to 1"),
        ({"argnums": (0, "w")}, "argnums holds 'w'"),
        ({"tolerance": 0.0}, "tolerance is 0.0, but must be above 0 and below 1"),
        ({"tolerance": 1e9}, "tolerance is 1000000000.0"),
        ({"seconds": -1}, "seconds is -1"),
        ({"intent": "clip"}, "intent is 'clip', but must be a value of refgrad.verify.intents"),
        ({"intent": intents.stop, "reference": dense}, "reference and intent each say what is meant"),
    ],
)
def test_bad_options_are_named(settings, said):
    with pytest.raises(ValueError, match=said):
        check(DROPS_W, X, W, **settings)


def test_a_tolerance_is_allowed_everywhere_and_proposed():
    wrong = check(OFF, X, **MOST)
    assert not wrong.ok and wrong.tolerance is not None and f"tolerance={wrong.tolerance:g} would pass" in str(wrong)
    assert check(OFF, X, tolerance=check(OFF, X).tolerance).ok
    assert not check(OFF, X, tolerance=1e-6, **MOST).ok
    assert blame(OFF, X, tolerance=1e-3).ok and not blame(OFF, X).ok
    assert check(DROPS_W, X, W, **FIRST).tolerance is None  # nothing below 10 % would do


ROUND = rule(lambda x: jnp.round(x), lambda r, g: (g,))
MEANT = {  # intention: a rule that means it, and one that does not quite
    intents.straight_through: (lambda x: jnp.sign(x), lambda r, g: (g,), lambda r, g: (1.1 * g,)),
    intents.stop: (jnp.cos, lambda r, g: (jnp.zeros_like(g),), lambda r, g: (jnp.full_like(g, 0.1),)),
    intents.reversal(0.5): (
        jnp.sin,
        lambda r, g: (-0.5 * g * jnp.cos(r[0]),),
        lambda r, g: (0.5 * g * jnp.cos(r[0]),),
    ),
    intents.clip(-0.1, 0.2): (
        lambda x: 2 * x,
        lambda r, g: (jnp.clip(2 * g, -0.1, 0.2),),
        lambda r, g: (2 * jnp.clip(g, -0.1, 0.2),),
    ),
    intents.finite(1e4): (
        lambda x: jnp.sqrt(jnp.abs(x)),
        lambda r, g: (g * jnp.sign(r[0]) * 0.5 / jnp.sqrt(jnp.maximum(jnp.abs(r[0]), 1e-8)),),
        lambda r, g: (g * jnp.sign(r[0]) * 0.5 / jnp.sqrt(jnp.abs(r[0])),),
    ),
}


@pytest.mark.parametrize("intent", MEANT, ids=str)
@pytest.mark.parametrize("dtype", fast_if(lambda dtype: dtype == "float32", ["float32", "bfloat16"]))
def test_an_intention_is_a_reference_checked_in_full(intent, dtype):
    forward, right, wrong = MEANT[intent]
    x = X.at[0, 0].set(0).astype(dtype) if intent.bound else X.astype(dtype)
    settings = {"intent": intent, **(MOST if dtype == "float32" and not intent.bound else FIRST)}
    assert_ok(rule(forward, right), x, **settings)
    assert not check(rule(forward, wrong), x, **settings).ok
    assert not check(rule(forward, right), x, **FIRST).ok or intent.bound
    assert blame(rule(forward, right), x, intent=intent).ok
    assert not blame(rule(forward, wrong), x, intent=intent).ok


def test_an_intention_needs_its_shape():
    with pytest.raises(ValueError, match=r"no differentiated argument has shape \(3,\)"):
        check(rule(lambda x: x.sum(1), lambda r, g: (g[:, None] * jnp.ones(4),)), X, intent=intents.straight_through)


def test_an_intention_is_that_of_the_calls_not_of_the_function_around_them():
    assert blame(lambda x: ROUND(x).sum(), X, intent=intents.straight_through).ok
    with pytest.raises(ValueError, match="intent is 'stop', but must be a value"):
        blame(lambda x: ROUND(x).sum(), X, intent="stop")


def test_references_reach_blame_where_the_function_is_the_rule():
    assert blame(ROUND, X, reference=lambda x: x).ok and not blame(ROUND, X, reference=lambda x: 2 * x).ok
    assert blame(ROUND, X, reference_vjp=lambda g, x: (g,)).ok
    with pytest.raises(ValueError, match="is for a function that is itself a rule"):
        blame(lambda x: ROUND(x), X, reference=lambda x: x)


def test_given_cotangents_are_differentiated_again_unless_numpy_made_them():
    cube = rule(lambda x: x**3, lambda r, g: (g * r[0] ** 2,))
    found = check(cube, X, reference_vjp=lambda g, x: (g * x**2,), **MOST)
    assert found.ok and {"reverse over reverse", "forward over reverse"} <= {row.property for row in found.rows}
    found = check(cube, X, reference_vjp=lambda g, x: (np.asarray(g) * np.asarray(x) ** 2,), **MOST)
    assert found.ok and any("the meant cotangents have no derivative" in row.note for row in found.rows)


def test_a_budget_of_seconds_names_what_it_left_out():
    report = check(ROUND, X, intent=intents.straight_through, seconds=1e-9)
    assert report.status == "partial" and not report.ok and "accuracy" in report.left_out and not report.failures
    assert "left out" in str(report)
    with pytest.raises(AssertionError, match="left out"):
        assert_ok(ROUND, X, intent=intents.straight_through, seconds=1e-9)
    assert check(ROUND, X, intent=intents.straight_through, seconds=1e9, **FIRST).status == "ok"


def test_a_long_check_shows_signs_of_life(monkeypatch, capfd):
    monkeypatch.setattr(clock, "QUIET", 0.01)
    monkeypatch.setattr(clock, "AGAIN", 0.01)
    with (watch := clock.TimeBudget()).reporting("f(x)"):
        watch.doing = "vmap"
        time.sleep(0.2)
    assert "checking f(x): vmap" in capfd.readouterr().err


def test_only_jit_fails():
    def backward(r, g):
        factor = 3.0 if bool(jnp.sum(g) == 12345) else 2.0
        return (factor * g * jnp.cos(r[0]),)

    report = check(rule(jnp.sin, backward), X)
    assert "only jit fails" in report.causes[0] and "the rule returns 2 times the gradient for x" in report.causes
    assert str(report).splitlines()[0].startswith("WRONG: jit: only jit fails")


@pytest.mark.parametrize(
    ("backward", "cause"),
    [
        (lambda r, g: (-g * jnp.cos(r[0]),), "the rule returns the negative of the gradient for x"),
        (lambda r, g: (g * jnp.cos(r[0]) / 3,), "the rule returns 0.333333 times the gradient for x"),
        (lambda r, g: (g * jnp.cos(r[0]) * jnp.nan,), "the rule returns no finite number for x"),
        (lambda r, g: (g * jnp.cos(r[0]) + jnp.eye(3, 4),), "accuracy of x: "),
    ],
)
def test_one_sentence_for_one_cause(backward, cause):
    report = check(rule(jnp.sin, backward), X)
    assert report.causes[0].startswith(cause)
    lines = str(report).splitlines()
    assert lines[0].startswith(f"WRONG: {cause}"[:90]) and max(map(len, lines)) <= 100
    assert max(map(len, report.summary().splitlines())) <= 100


def test_a_tie_counted_twice_is_not_an_argument_without_effect():
    op = rule(lambda x: jnp.max(x), lambda r, g: (g * (r[0] == jnp.max(r[0])).astype(r[0].dtype),))
    (cause,) = check(op, jnp.array([1.0, 2.0, 2.0]), **FIRST).causes
    assert cause.startswith("points of x: the 2 entries of a tie add up to")


def test_a_closure_over_a_tracer_is_named():
    def times_sine(w, x):
        op = rule(lambda x: jnp.sin(w) * x, lambda r, g: (jnp.sin(w) * g,))
        return op(x)

    report = check(times_sine, X, X, argnums=1, order=1, properties=["scan"])
    assert "a tracer leaks: the rule closes over" in report.causes[0]


def test_the_title_names_the_place():
    report = check(lambda x: ROUND(x), X, intent=intents.straight_through, **FIRST)
    assert report.subject.startswith("<lambda>(x: f32[3,4]) at ") and "test_options.py:" in report.subject


def test_stop_gradient_states_an_intention_outside_of_rules():
    def loss(v, r):
        return jnp.square(jax.lax.stop_gradient(r) - v)

    v, r = X[0], X[1]
    report = check(loss, v, r, **FIRST)
    assert report.ok and "held constant" in report.facts
    square = rule(jnp.square, lambda s, g: (2 * g * s[0],))
    assert check(lambda v, r: square(jax.lax.stop_gradient(r) - v), v, r, **FIRST).ok
    through = rule(loss, lambda s, g: (2 * g * (s[0] - s[1]), 2 * g * (s[1] - s[0])))
    held = rule(loss, lambda s, g: (2 * g * (s[0] - s[1]), jnp.zeros_like(s[1])))
    assert check(through, v, r, **FIRST).ok and blame(through, v, r).ok
    assert not check(held, v, r, **FIRST).ok and check(held, v, r, reference=loss, **FIRST).ok
