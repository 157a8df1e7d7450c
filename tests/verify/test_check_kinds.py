"""Reports where "right" has more than one meaning: kinks, instability, meant differences, other oracles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from refgrad.verify import assert_ok, check
from tests.lanes import fast_if
from tests.verify.specimens import AT_THE_HINGE, RIGHT, hinge, normal, rule, sine

ACCURACY = {"properties": ["accuracy"]}


def test_kink_is_said_with_both_one_sided_derivatives():
    report = check(hinge, *AT_THE_HINGE, **ACCURACY)
    assert report.ok
    (row,) = report.of("points")
    assert (row.verdict, row.index, row.got) == ("kink", (1,), 0.0)
    ct = check(hinge, jnp.array([1.0, 1.0, 1.0], jnp.float32), **ACCURACY).of("points")
    assert not ct and row.note.startswith("slopes 0 and ")


def test_kink_is_said_where_rule_and_autodiff_agree():
    half = rule(
        lambda x: jnp.maximum(x, 0),
        lambda x: (jnp.maximum(x, 0), x),
        lambda x, g: (jnp.where(x > 0, g, jnp.where(x == 0, g / 2, 0)),),
    )
    report = check(half, *AT_THE_HINGE, **ACCURACY)
    assert report.ok
    assert [row.verdict for row in report.of("points")] == ["kink"]


def test_tie_of_three_in_a_maximum():
    first = rule(
        lambda x: jnp.max(x),
        lambda x: (jnp.max(x), x),
        lambda x, g: (jnp.where(jnp.arange(x.size) == jnp.argmax(x), g, 0),),
    )
    x = jnp.array([-1.0, 3.0, 3.0, 3.0], jnp.float32)
    report = check(first, x, **ACCURACY)
    assert report.ok, report
    assert "2 more entries" in report.of("points")[0].note
    assert not check(first, x.at[1].set(4.0), **ACCURACY).of("points")


def test_scalar_hinge():
    report = check(hinge, jnp.float32(0.0), **ACCURACY)
    assert [row.verdict for row in report.of("points")] == ["kink"]
    assert not check(hinge, jnp.float32(0.1), **ACCURACY).of("points")


def test_a_tie_that_only_float32_has():
    """x·y rounds to the hinge at 1 in float32 and lies 1.5e-11 above it in float64."""
    f = lambda x, y: jnp.maximum(x * y, 1)  # noqa: E731
    above = lambda x, y, g: jnp.where(x * y > 1, g, 0)  # noqa: E731
    right = rule(f, lambda *k: (f(*k), k), lambda k, g: (above(*k, g) * k[1], above(*k, g) * k[0]))
    x = np.float32(1 + 2**-12)
    y = np.float32(1 / np.float64(x))
    assert x * y == 1 < np.float64(x) * np.float64(y)
    report = check(right, jnp.array([x, 2.0]), jnp.array([y, 2.0]), **ACCURACY)
    assert report.ok and all("neighbouring arguments" in row.note for row in report.of("accuracy")), report


@pytest.mark.parametrize(("rounded", "right"), [(1.0078125, True), (1.125, False)])
def test_at_a_kink_a_rule_may_round_as_anywhere_else(rounded, right):
    """One unit in bfloat16's last place above the larger one-sided derivative is rounding, sixteen are not."""
    f = lambda x: jnp.maximum(x, 0)  # noqa: E731
    slope = lambda x: jnp.where(x > 0, 1, jnp.where(x == 0, rounded, 0)).astype(jnp.bfloat16)  # noqa: E731
    there = rule(f, lambda x: (f(x), x), lambda x, g: (slope(x) * g,))
    report = check(there, jnp.array([-1, 0, 2], jnp.bfloat16), **ACCURACY)
    assert report.of("points") and report.ok == right, report


@pytest.mark.parametrize(("slope", "right"), [(0.0, True), (1.0, False), (float("nan"), False)])
def test_rule_where_autodiff_is_not_finite(slope, right):
    """x·√x² at 0: its slope is 0, and autodiff of it is NaN."""
    f = lambda x: jnp.where(x == 0, 0, x * jnp.sqrt(x * x))  # noqa: E731
    there = rule(f, lambda x: (f(x), x), lambda x, g: (jnp.where(x == 0, slope, 2 * jnp.abs(x)).astype(g.dtype) * g,))
    report = check(there, jnp.array([0.0, 1.0], jnp.float32), **ACCURACY)
    assert report.ok == right, report
    assert slope or [row.verdict for row in report.of("autodiff")] == ["right; autodiff is wrong here"]


def test_unstable_rule_fails_and_says_so():
    def bwd(x, g):
        e = jnp.exp(-x)
        return (g * e / (1 + e) ** 2,)

    unstable = rule(jax.nn.sigmoid, lambda x: (jax.nn.sigmoid(x), x), bwd)
    report = check(unstable, jnp.array([-200.0, 0.0, 3.0], jnp.float32), **ACCURACY)
    (row,) = report.of("accuracy")
    assert row.failed
    assert row.index == (0,)
    assert "right in float64, but overflows in this dtype" in row.note
    assert check(unstable, jnp.array([-2.0, 0.0, 3.0], jnp.float32), **ACCURACY).ok


def test_rule_more_accurate_than_autodiff_passes_and_says_so():
    softplus = lambda x: jnp.log(1 + jnp.exp(x))  # noqa: E731
    stable = rule(softplus, lambda x: (softplus(x), x), lambda x, g: (g * jax.nn.sigmoid(x),))
    report = check(stable, jnp.array([-2.0, 0.0, 100.0], jnp.float32), **ACCURACY)
    assert report.ok, report
    assert "more accurate than autodiff" in report.of("accuracy")[0].note
    assert report.of("autodiff")[0].verdict == "right; autodiff is wrong here"


def test_ill_conditioned_function_is_not_the_rules_fault():
    def f(x):
        return jnp.sin(x * x)

    right = rule(f, lambda x: (f(x), x), lambda x, g: (2 * x * g * jnp.cos(x * x),))
    wrong = rule(f, lambda x: (f(x), x), lambda x, g: (2.001 * x * g * jnp.cos(x * x),))
    x = jnp.array([3000.123, 2000.3, 0.3], jnp.float32)
    report = check(right, x, **ACCURACY)
    assert report.ok, report
    assert "ill-conditioned" in report.of("accuracy")[0].note
    assert not check(wrong, x, **ACCURACY).ok


def test_less_accurate_than_autodiff_is_said_but_no_fault():
    f = lambda x, w: x @ w  # noqa: E731
    lossy = rule(f, lambda x, w: (f(x, w), (x, w)), lambda k, g: (jnp.tan(jnp.arctan(g @ k[1].T)), k[0].T @ g))
    report = check(lossy, normal(3, 4), normal(4, 400), **ACCURACY)
    assert report.ok, report
    assert [row.verdict for row in report.of("median")] == ["less accurate", "ok"]


def test_autodiff_that_is_no_derivative_is_told_from_a_wrong_rule():
    f = lambda x: x * lax.stop_gradient(x)  # noqa: E731
    with_autodiff = rule(f, lambda x: (f(x), x), lambda x, g: (g * x,))
    with_function = rule(f, lambda x: (f(x), x), lambda x, g: (2 * g * x,))
    wrong, right = (check(g, normal(4), **ACCURACY) for g in (with_autodiff, with_function))
    assert not wrong.ok and right.ok
    assert wrong.of("accuracy")[0].note == "rule and autodiff agree, and both differ from the function"
    assert right.of("autodiff")[0].verdict == "right; autodiff is wrong here"
    assert check(with_autodiff, normal(4), reference=f, **ACCURACY).ok


@pytest.mark.parametrize("dtype", fast_if(lambda dtype: dtype == "bfloat16", ["float32", "bfloat16", "float16"]))
def test_the_entries_of_a_tie_add_up_to_within_their_own_rounding(dtype):
    """A third of a cotangent, three times, is not the cotangent in 16 bits; the whole of it three times is wrong."""
    tied = lambda x: (x == jnp.max(x, axis=-1, keepdims=True)).astype(jnp.float32)  # noqa: E731
    share = lambda x: tied(x) / jnp.sum(tied(x), -1, keepdims=True)  # noqa: E731
    backward = lambda of: lambda x, g: ((g[..., None].astype(jnp.float32) * of(x)).astype(x.dtype),)  # noqa: E731
    top = lambda x: jnp.max(x, axis=-1)  # noqa: E731
    x = jnp.array([[1, 1, 1, 0], [2, 2, 0, 2]], dtype)
    for seed in range(2):
        for of, right in ((share, True), (tied, False)):
            assert check(rule(top, lambda x: (top(x), x), backward(of)), x, **ACCURACY, seed=seed).ok == right


STRAIGHT = rule(lambda x: jnp.round(x), lambda x: (jnp.round(x), None), lambda _, g: (g,))
REVERSAL = rule(lambda x: x * 1, lambda x: (x * 1, None), lambda _, g: (-g,))
CLIPPED = rule(lambda x: x * 1, lambda x: (x * 1, None), lambda _, g: (jnp.clip(g, -0.1, 0.1),))


@pytest.mark.parametrize(
    ("f", "meant"),
    [
        (STRAIGHT, {"reference": lambda x: x * 1}),
        (STRAIGHT, {"reference_vjp": lambda g, x: (g,)}),
        (REVERSAL, {"reference": lambda x: -x}),
        (CLIPPED, {"reference_vjp": lambda g, x: (jnp.clip(g, -0.1, 0.1),)}),
    ],
)
def test_rules_meant_to_differ(f, meant):
    x = normal(5) + 0.25
    assert not check(f, x, **ACCURACY).ok
    report = check(f, x, **ACCURACY, **meant)
    assert report.ok, report
    assert "reference" in report.facts["truth"]
    other = {"reference": lambda x: 2 * x} if "reference" in meant else {"reference_vjp": lambda g, x: (2 * g,)}
    assert not check(f, x, **ACCURACY, **other).ok


@pytest.mark.parametrize("cotangents", [lambda g, x, w: (g,), lambda g, x, w: (g, None)])
def test_reference_vjp_gives_one_cotangent_per_argument(cotangents):
    f, args = RIGHT["matmul"]
    with pytest.raises(ValueError, match=r"cotangents for 2 arguments|has \(3, 4\)"):
        check(f, *args, reference_vjp=cotangents)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("matmul", "exact arithmetic on the plain forward"),
        ("interpreted Pallas kernel", "forward mode"),
        ("unknown trips", "exact arithmetic on the plain forward"),
        ("callback", "finite differences"),
    ],
)
@pytest.mark.parametrize("copies", fast_if(lambda copies: copies == 1, [1, 200]))
def test_the_oracle_is_named_and_sees_a_fault(name, kind, copies):
    f, args = RIGHT[name]
    args = [jnp.tile(x, (copies,) + (1,) * (x.ndim - 1)) if i == 0 else x for i, x in enumerate(args)]
    report = check(f, *args, **ACCURACY)
    assert report.ok, report
    assert report.facts["truth"].startswith(kind)
    wrong = rule(f.fun, f.fwd, lambda kept, g: jax.tree.map(lambda c: c.at[0].mul(1.5), f.bwd(kept, g)))
    failed = check(wrong, *args, **ACCURACY)
    assert not failed.ok
    assert kind.startswith("exact") or "no reverse mode" in failed.facts["truth"]


def test_truth_limited_to_the_programs_precision_is_said():
    def f(x):
        return RIGHT["interpreted Pallas kernel"][0].fun(x.astype(jnp.float32))

    narrow = rule(f, lambda x: (f(x), x), lambda x, g: (g * jnp.cos(x),))
    report = check(narrow, normal(4), **ACCURACY)
    assert report.ok
    assert "pallas_call" in report.facts["limits"]


def test_rules_in_a_float32_island_meet_a_float64_truth(x64):
    """An inner cast would make a float64 oracle a float32 one, silently."""

    def f(x):
        return jnp.sum(x.astype(jnp.float32) ** 2).astype(x.dtype)

    exact = rule(f, lambda x: (f(x), x), lambda x, g: (2 * g * x,))
    assert check(exact, normal(4, dtype=jnp.float64), **ACCURACY).ok


def test_closure_over_a_value_that_is_not_differentiated():
    def outer(w, x):
        inner = sine(lambda x, g: (g * jnp.cos(x),))
        return inner(x) * lax.stop_gradient(w)

    assert_ok(lambda x: outer(jnp.float32(2.0), x), normal(4), order=1)


def test_each_draw_is_the_seeds():
    a, b = (check(RIGHT["matmul"][0], *RIGHT["matmul"][1], **ACCURACY, seed=s) for s in (0, 1))
    again = check(RIGHT["matmul"][0], *RIGHT["matmul"][1], **ACCURACY, seed=0)
    assert a.rows == again.rows
    assert not np.array_equal([r.got for r in a.rows], [r.got for r in b.rows])
