"""Verdicts and slopes at the points where float64 autodiff has none: ties, saturation, ends of a domain, quotients."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flint import arb, ctx
from jax import lax

from refgrad.verify.exact import EntryVerdict, exact
from refgrad.verify.exact.scalars.functions import terms
from refgrad.verify.exact.scalars.germ import variable
from refgrad.verify.exact.scalars.special_functions import ANALYTIC

INF = float("inf")


def bce(y):
    return lambda z: jax.nn.relu(z) - z * y + jnp.log1p(jnp.exp(-jnp.abs(z)))


def quotient(f):
    return lambda x: jnp.where(x == 0, 1.0, f(x) / x)


def cylinder(p):
    """Signed distance of (radius, height) to a cylinder of radius 1 and half height 1."""
    d = jnp.abs(p) - 1.0
    return jnp.minimum(jnp.max(d), 0.0) + jnp.linalg.norm(jnp.maximum(d, 0.0))


def norm(x):
    return jnp.sqrt(jnp.sum(x * x))


SIGMOID_800 = 3.6678745841776872e-348  # 0 in float64, not in `data`

# a function of one array: arguments → the slope at each entry
SMOOTH = {
    "BCE with logits, y = 0": (bce(0.0), [0.0, 3.0], [0.5, 1 / (1 + math.exp(-3))]),
    "BCE with logits, y = 1": (bce(1.0), [0.0, -3.0], [-0.5, 1 / (1 + math.exp(3)) - 1]),
    "log(1 + eˣ)": (lambda x: jnp.log(1 + jnp.exp(x)), [100.0, 800.0], [1.0, 1.0]),
    "a guarded product": (lambda y: jnp.where(y == 0, 0.0, jnp.array([3.0, 5.0]) * y), [0.0, 1.0], [3.0, 5.0]),
    "sin(x)/x": (quotient(jnp.sin), [0.0], [0.0]),
    "expm1(x)/x": (quotient(jnp.expm1), [0.0], [0.5]),
    "(1 − cos x)/x²": (lambda x: jnp.where(x == 0, 0.5, (1 - jnp.cos(x)) / x**2), [0.0], [0.0]),
    "x⁰": (lambda x: x**0.0, [0.0, 2.0], [0.0, 0.0]),
    "relu(x) − relu(−x)": (lambda x: jax.nn.relu(x) - jax.nn.relu(-x), [0.0], [1.0]),
    "abs squared": (lambda x: jnp.abs(x) ** 2, [0.0, -2.0], [0.0, -4.0]),
    "x·|x|": (lambda x: x * jnp.abs(x), [0.0], [0.0]),
    "max(x, −x)²": (lambda x: jnp.maximum(x, -x) ** 2, [0.0], [0.0]),
    "log-sigmoid": (jax.nn.log_sigmoid, [0.0, -800.0, 800.0], [0.5, 1.0, 0.0]),
    "sigmoid": (jax.nn.sigmoid, [800.0, -800.0], [0.0, 0.0]),
    "erf": (lax.erf, [0.0, 30.0], [2 / math.sqrt(math.pi), 0.0]),
    "sorted, by all values": (lambda x: jnp.sort(x) * 2.0, [1.0, 1.0, 0.0], [2.0, 2.0, 2.0]),
    "logsumexp, masked": (jax.nn.logsumexp, [-INF, 0.0, 0.0], [0.0, 0.5, 0.5]),
    "cubic in |x|^3": (lambda x: jnp.sqrt(x**6), [0.0], [0.0]),
    "a bump, flat at 0": (lambda x: jnp.where(x <= 0, 0.0, jnp.exp(-1 / x)), [0.0], [0.0]),
    "atan2": (lambda x: jnp.arctan2(jnp.zeros_like(x), x), [2.0], [0.0]),
    "a norm elsewhere": (norm, [3.0, 4.0], [0.6, 0.8]),
    "inside a cylinder": (cylinder, [0.5, 0.2], [1.0, 0.0]),
    "log(eˣ) − x": (lambda x: jnp.log(jnp.exp(x)) - x, [1.5], [0.0]),
}

# … → the slopes of each entry, from below and from above
KINKS = {
    "relu": (jax.nn.relu, [0.0], [(0.0, 1.0)]),
    "abs": (jnp.abs, [0.0], [(-1.0, 1.0)]),
    "max of two": (jnp.max, [1.0, 1.0], [(0.0, 1.0), (0.0, 1.0)]),
    "sorted": (lambda x: jnp.sort(x) @ jnp.array([1.0, 3.0]), [1.0, 1.0], [(1.0, 3.0), (1.0, 3.0)]),
    "a norm": (norm, [0.0, 0.0], [(-1.0, 1.0)] * 2),
    "x·arctan(1/x)": (
        lambda x: jnp.where(x == 0, 0.0, x * jnp.arctan(1 / x)),
        [0.0],
        [(-math.pi / 2, math.pi / 2)],
    ),
    "√|x|": (lambda x: jnp.sqrt(jnp.abs(x)), [0.0], [(-INF, INF)]),
    "the axis of a cylinder": (lambda p: cylinder(jnp.stack([jnp.abs(p[0]), p[1]])), [0.0, 0.0], [(-1.0, 1.0)] * 2),
    "e^−|x|·I₀(x)": (lax.bessel_i0e, [0.0], [(1.0, -1.0)]),
}

# … → the slope from inside, on the side where the function is defined
ENDS = {
    "√(x³)": (lambda x: jnp.sqrt(x**3), [0.0], [0.0]),
    "√x": (jnp.sqrt, [0.0], [INF]),
    "x·log x": (lambda x: jnp.where(x == 0, 0.0, x * jnp.log(x)), [0.0], [-INF]),
    "x²·log x": (lambda x: jnp.where(x == 0, 0.0, x * x * jnp.log(x)), [0.0], [0.0]),
    "arccos": (jnp.arccos, [1.0, -1.0], [-INF, -INF]),
    "arcsin": (jnp.arcsin, [1.0], [INF]),
    "x^1.5": (lambda x: x**1.5, [0.0], [0.0]),
    "acosh(x)²": (lambda x: jnp.arccosh(x) ** 2, [1.0], [2.0]),
}

OTHER = {
    "a jump": (lambda x: jnp.where(x == 0, 5.0, x), [0.0], EntryVerdict.JUMP),
    "sign": (jnp.sign, [0.0], EntryVerdict.JUMP),
    "floor": (jnp.floor, [2.0], EntryVerdict.JUMP),
    "round": (jnp.round, [0.5], EntryVerdict.JUMP),
    "a hidden pole": (lambda x: jnp.where(x == 0, 0.0, 1 / x), [0.0], EntryVerdict.JUMP),
    "log 0": (jnp.log, [0.0], EntryVerdict.NOT_FINITE),
    "log of a negative number": (jnp.log, [-1.0], EntryVerdict.NOT_FINITE),
    "a cube root": (jnp.cbrt, [0.0], EntryVerdict.NOT_FINITE),
    "logsumexp of −∞": (jax.nn.logsumexp, [-INF, -INF], EntryVerdict.NOT_FINITE),
    "x·log x, not guarded": (lambda x: x * jnp.log(x), [0.0], EntryVerdict.NOT_FINITE),
    "a tie that balls do not decide": (
        lambda x: jnp.where(jnp.log(jnp.exp(x)) == x, x, 2 * x),
        [1.5],
        EntryVerdict.UNDECIDED,
    ),
}


def ids(table):
    return pytest.mark.parametrize("f, x, expected", table.values(), ids=table)


def floats(x):
    return jnp.array(x, jnp.float32)


@ids(SMOOTH)
def test_smooth_points_have_one_slope(f, x, expected):
    entries = list(exact(f, floats(x)).entries())
    assert {e.verdict for e in entries} == {EntryVerdict.SMOOTH}
    for side in ("below", "above"):
        np.testing.assert_allclose([float(getattr(e, side).mid()) for e in entries], expected, rtol=1e-7, atol=1e-30)


@ids(KINKS)
def test_kinks_have_two(f, x, expected):
    entries = list(exact(f, floats(x)).entries())
    assert {e.verdict for e in entries} == {EntryVerdict.KINK}
    assert [(float(e.below.mid()), float(e.above.mid())) for e in entries] == expected


@ids(ENDS)
def test_ends_of_a_domain_have_the_slope_from_inside(f, x, expected):
    entries = list(exact(f, floats(x)).entries())
    assert {e.verdict for e in entries} == {EntryVerdict.END}
    assert [float((e.above if e.below is None else e.below).mid()) for e in entries] == expected


@ids(OTHER)
def test_other_verdicts(f, x, expected):
    assert {e.verdict for e in exact(f, floats(x)).entries()} == {expected}


@ids(SMOOTH)
def test_the_reverse_sweep_is_right_or_undecided(f, x, expected):
    (gradient,) = exact(f, floats(x)).gradient()
    got = gradient.mid[gradient.decided]
    np.testing.assert_allclose(got, np.array(expected)[gradient.decided], rtol=1e-7, atol=1e-30)


@pytest.mark.parametrize("table", [KINKS, ENDS, OTHER], ids=["kinks", "ends", "others"])
def test_the_reverse_sweep_never_decides_where_there_is_no_derivative(table):
    for f, x, _ in table.values():
        (gradient,) = exact(f, floats(x)).gradient()
        assert not gradient.decided.any() or (table is OTHER and not np.any(gradient.mid[gradient.decided])), f


def test_saturation_keeps_its_digits():
    (gradient,) = exact(jax.nn.sigmoid, floats([800.0])).gradient()
    digits = gradient.data[0]
    assert str(digits)[1:6] == "3.667" and "e-348" in str(digits)
    (value,) = exact(jax.nn.softmax, floats([0.0, -2461.0])).value
    assert "1.58957" in str(value.data[1]) and "e-1069" in str(value.data[1])


def test_one_entry_excuses_no_other():
    rows = floats([[-INF, -INF], [1.0, 2.0]])
    truth = exact(lambda x: jax.nn.logsumexp(x, axis=1), rows)
    verdicts = [e.verdict for e in truth.entries()]
    assert verdicts == [EntryVerdict.NOT_FINITE] * 2 + [EntryVerdict.SMOOTH] * 2
    assert [e.verdict for e in exact(jnp.abs, floats([0.0, 1.0, -INF])).entries()][:2] == [
        EntryVerdict.KINK,
        EntryVerdict.SMOOTH,
    ]


def test_complex_entries_along_both_parts():
    z = jnp.array([0.0, 1 + 2j], jnp.complex64)
    truth = exact(lambda z: jnp.abs(z) ** 2, z)
    assert [(e.imaginary, float(e.above.mid())) for e in truth.entries()] == [
        (False, 0.0),
        (True, 0.0),
        (False, 2.0),
        (True, 4.0),
    ]
    np.testing.assert_array_equal(truth.gradient()[0].mid, [0, 2 - 4j])


def test_the_sign_of_a_complex_number():
    z = jnp.array([1 + 2j, 1.0], jnp.complex64)
    truth = exact(lambda z: (jnp.sign(z).imag, jnp.sign(z).real * 2), z)
    found = [float(e.above.mid()) for e in truth.entries()]
    np.testing.assert_allclose(found[::2], truth.gradient()[0].mid.real, atol=1e-30)
    np.testing.assert_allclose(found[1::2], -truth.gradient()[0].mid.imag, atol=1e-30)
    np.testing.assert_allclose(found[2:], [0, 1], atol=1e-30)


def test_directions_and_second_derivatives():
    truth = exact(lambda x: x**3, floats([2.0]))
    assert [d[0].mid[0] for d in truth.along([[1.0]], [[-2.0]])] == [12.0, -24.0]
    assert truth.along([[1.0]], derivative=2)[0][0].mid[0] == 12.0
    right = exact(norm, floats([0.0, 0.0])).along([[3.0, 4.0]])[0][0]
    np.testing.assert_allclose(right.mid, 5.0)


def test_radii_hold_the_truth():
    (value,) = exact(jnp.exp, floats([1.0])).value
    assert 0 < value.rad[0] < 1e-15 and abs(value.mid[0] - math.e) <= value.rad[0]
    assert 4e-4 < value.error(np.float32([2.7178]))[0] < 5e-4


ORDERS = [(0.5, 2.0), (1.5, 2.0), (1.0, 0.5), (2.5, 1.5)]


@pytest.mark.parametrize("a, b", ORDERS)
def test_incomplete_functions_at_the_ends_of_their_domains(a, b):
    def slope(f, x):
        (entry,) = exact(f, floats(x)).entries()
        assert entry.verdict is EntryVerdict.END or (
            entry.verdict is EntryVerdict.SMOOTH and (a if x == 0 else b) % 1 == 0
        )
        return float((entry.above if x == 0 else entry.below).mid())

    def density(power, at_one):  # of a function that starts as x^power, whose slope is `at_one` where power is 1
        return INF if power < 1 else at_one if power == 1 else 0.0

    assert slope(lambda x: lax.igamma(a, x), 0.0) == density(a, 1.0)
    assert slope(lambda x: lax.igammac(a, x), 0.0) == -density(a, 1.0)
    assert slope(lambda x: lax.betainc(a, b, x), 0.0) == density(a, b)
    assert slope(lambda x: lax.betainc(a, b, x), 1.0) == density(b, a)


@pytest.mark.parametrize("a, b", ORDERS)
def test_incomplete_functions_where_they_start(a, b):
    start = variable(arb(0))
    with ctx.workprec(512), terms(12):
        for name, parameters in (("igamma", [a]), ("igammac", [a]), ("regularized_incomplete_beta", [a, b])):
            f, parameters = ANALYTIC[name], [arb(p) for p in parameters]
            germ, step = f(*parameters, start), arb(2) ** -24
            series = sum((c * step ** arb(str(float(k[0]))) for k, c in germ.terms.items()), arb(0))
            assert abs(series - f(*parameters, step)) < step**11
    (entry,) = exact(lambda x: jax.scipy.special.betainc(1.5, 2.0, x), floats(0.9)).entries()
    assert entry.verdict is EntryVerdict.SMOOTH


def test_a_tied_maximum_that_cancels_is_no_kink():
    """A shift by the maximum adds nothing, whichever of the tied entries it is taken from."""
    x = floats([[1.0, 1.0, 0.5], [2.0, 2.0, 2.0]])
    (gradient,) = exact(lambda x: jax.nn.logsumexp(x, axis=-1), x).gradient()
    assert gradient.decided.all() and gradient.rad.max() < 1e-15
    np.testing.assert_allclose(gradient.mid, jax.nn.softmax(x, axis=-1), rtol=1e-6)
    (gradient,) = exact(lambda x: jnp.max(x, axis=-1), x).gradient()
    assert gradient.decided.tolist() == [[False] * 3] * 2


def test_what_stop_gradient_holds_is_not_equal_to_what_moves():
    f = lambda x: jnp.where(x == lax.stop_gradient(x), 5.0, x)  # noqa: E731
    assert next(exact(f, floats(1.0)).entries()).verdict is EntryVerdict.SMOOTH
    (entry,) = exact(f, floats(1.0), stop_gradient=True).entries()
    assert entry.verdict is EntryVerdict.JUMP
