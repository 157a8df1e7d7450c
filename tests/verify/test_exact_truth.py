"""`check` and `blame` where autodiff cannot help: ties, overflow, saturation, kinks, jumps and the ends of domains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from refgrad.verify import blame, check, exact_oracle
from tests.lanes import fast_if
from tests.verify.specimens import normal, rule
from tests.work import compilations

INF, NAN = float("inf"), float("nan")
RIGHT = "right; autodiff is wrong here"
F32 = jnp.float32


def with_rule(f, bwd):
    """`f` of some arrays, with `bwd(g, *arrays)` for its rule."""
    return rule(lambda *xs: f(*xs), lambda *xs: (f(*xs), xs), lambda xs, g: bwd(g, *xs))


def times(f, slope):
    """`f` of one array, entry by entry, with `slope(x)` for its derivative."""
    return with_rule(f, lambda g, x: (g * jnp.asarray(slope(x), x.dtype),))


def softplus(x):
    return jnp.log(1 + jnp.exp(x))


def tanh(x):
    return (jnp.exp(x) - jnp.exp(-x)) / (jnp.exp(x) + jnp.exp(-x))


def softmax(x):
    return jnp.exp(x) / jnp.sum(jnp.exp(x))


def add_exp(a, b):
    return jnp.log(jnp.exp(a) + jnp.exp(b))


def bce(z, y):
    return jax.nn.relu(z) - z * y + jnp.log1p(jnp.exp(-jnp.abs(z)))


def cylinder(p):
    """The signed distance to a cylinder, whose axis is the second coordinate."""
    d = jnp.abs(p) - 1.0
    return jnp.minimum(jnp.max(d), 0.0) + jnp.linalg.norm(jnp.maximum(d, 0.0))


def guarded(x, y):
    return jnp.where(y == 0, 0.0, x * y)


def norm(x):
    return jnp.sqrt(jnp.sum(x * x))


def probabilities(g, x):
    p = jax.nn.softmax(x)
    return (p * (g - jnp.sum(p * g)),)


def at(x, place, value, otherwise):
    return jnp.where(x == place, value, otherwise)


OVERFLOWS = jnp.array([0.5, 100.0], F32)

# name: function with its rule, arguments, is the rule right, a verdict that the report holds
POINTS = {
    # a forward that overflows excuses nothing
    "softplus, NaN": (times(softplus, lambda x: jnp.exp(x) / (1 + jnp.exp(x))), (OVERFLOWS,), False, "fail"),
    "softplus, 0 for 1": (
        times(softplus, lambda x: jnp.nan_to_num(jnp.exp(x) / (1 + jnp.exp(x)))),
        (OVERFLOWS,),
        False,
        "fail",
    ),
    "softplus, rounded elsewhere": (
        times(softplus, lambda x: jnp.where(x > 50, 1, jax.nn.sigmoid(x).astype(jnp.bfloat16).astype(F32))),
        (OVERFLOWS,),
        False,
        "fail",
    ),
    "softplus": (times(softplus, jax.nn.sigmoid), (OVERFLOWS,), True, RIGHT),
    "tanh by exponentials, NaN": (times(tanh, lambda x: 1 - tanh(x) ** 2), (OVERFLOWS,), False, "fail"),
    "tanh by exponentials": (times(tanh, lambda x: 1 - jnp.tanh(x) ** 2), (OVERFLOWS,), True, RIGHT),
    "softmax without a shift": (with_rule(softmax, probabilities), (jnp.array([100.0, 99.0, 1.0], F32),), True, RIGHT),
    "softmax without a shift, NaN": (
        with_rule(softmax, lambda g, x: (softmax(x) * (g - jnp.sum(softmax(x) * g)),)),
        (jnp.array([100.0, 99.0, 1.0], F32),),
        False,
        "fail",
    ),
    "log of a sum of exponentials": (
        with_rule(add_exp, lambda g, a, b: (g * jax.nn.sigmoid(a - b), g * jax.nn.sigmoid(b - a))),
        (jnp.array([500.0, 1.0], F32), jnp.array([499.0, 2.0], F32)),
        True,
        RIGHT,
    ),
    "log of a sum of exponentials, 1 for both": (
        with_rule(
            add_exp, lambda g, a, b: (g * jax.nn.sigmoid(a - b), jnp.where(b > 400, g, g * jax.nn.sigmoid(b - a)))
        ),
        (jnp.array([500.0, 1.0], F32), jnp.array([499.0, 2.0], F32)),
        False,
        "fail",
    ),
    # where the truth is not finite, the row says so, and the other entries are judged as ever
    "log": (times(jnp.log, lambda x: 1 / x), (jnp.array([0.0, 0.5], F32),), True, "truth is not finite"),
    "log, off elsewhere": (
        times(jnp.log, lambda x: at(x, 0, INF, 1.0005 / x)),
        (jnp.array([0.0, 0.5], F32),),
        False,
        "truth is not finite",
    ),
    "sqrt outside": (
        times(jnp.sqrt, lambda x: 0.5 / jnp.sqrt(x)),
        (jnp.array([-1.0, 4.0], F32),),
        True,
        "truth is not finite",
    ),
    "sqrt outside, off elsewhere": (
        times(jnp.sqrt, lambda x: 0.5005 / jnp.sqrt(x)),
        (jnp.array([-1.0, 4.0], F32),),
        False,
        "truth is not finite",
    ),
    "x·log x, not guarded": (
        times(lambda x: x * jnp.log(x), lambda x: jnp.log(x) + 1),
        (jnp.array([0.0, 0.5], F32),),
        True,
        "truth is not finite",
    ),
    # ties inside smooth functions
    "cross-entropy at 0": (
        with_rule(bce, lambda g, z, y: (g * (jax.nn.sigmoid(z) - y), -g * z)),
        (jnp.zeros(4, F32), jnp.array([0.0, 1.0, 1.0, 0.0], F32)),
        True,
        RIGHT,
    ),
    "cross-entropy at 0, as autodiff": (
        with_rule(bce, lambda g, z, y: (g * (at(z, 0, 0, jax.nn.sigmoid(z)) - y), -g * z)),
        (jnp.zeros(4, F32), jnp.array([0.0, 1.0, 1.0, 0.0], F32)),
        False,
        "fail",
    ),
    "a guarded product": (
        with_rule(guarded, lambda g, x, y: (g * y, g * x)),
        (jnp.array([1.0, 2.0], F32), jnp.array([0.5, 0.0], F32)),
        True,
        RIGHT,
    ),
    "a difference of hinges": (
        times(lambda x: jax.nn.relu(x) - jax.nn.relu(-x), jnp.ones_like),
        (jnp.array([0.0, 1.0], F32),),
        True,
        "ok",
    ),
    "inside a cylinder": (
        with_rule(cylinder, lambda g, p: (g * jnp.array([1.0, 0.0], F32),)),
        (jnp.array([0.5, 0.2], F32),),
        True,
        "ok",
    ),
    "sin(x)/x": (
        times(
            lambda x: jnp.where(x == 0, 1.0, jnp.sin(x) / x),
            lambda x: at(x, 0, 0, (jnp.cos(x) - jnp.sin(x) / x) / x),
        ),
        (jnp.array([0.0, 0.5], F32),),
        True,
        RIGHT,
    ),
    "√(x²)·x": (
        times(lambda x: x * jnp.sqrt(x * x), lambda x: 2 * jnp.abs(x)),
        (jnp.array([0.0, -2.0], F32),),
        True,
        RIGHT,
    ),
    # what has no digits
    "a saturated softmax": (
        with_rule(lambda x: jax.nn.softmax(x), probabilities),
        (jnp.array([0.0, 800.0, -300.0], F32),),
        True,
        "ok",
    ),
    "a saturated sigmoid": (
        times(jax.nn.sigmoid, lambda x: jax.nn.sigmoid(x) * jax.nn.sigmoid(-x)),
        (jnp.array([800.0, -800.0], F32),),
        True,
        "ok",
    ),
    "a saturated sigmoid, 1": (
        times(jax.nn.sigmoid, jax.nn.sigmoid),
        (jnp.array([800.0, -800.0], F32),),
        False,
        "fail",
    ),
    "logsumexp with −∞": (
        with_rule(lambda x: jax.nn.logsumexp(x), lambda g, x: (g * jax.nn.softmax(x),)),
        (jnp.array([-INF, 0.0, 1.0], F32),),
        True,
        "ok",
    ),
    "x⁰": (times(lambda x: x**0.0, jnp.zeros_like), (jnp.array([0.0, 2.0], F32),), True, "ok"),
    # conditioning is measured, with or without autodiff beside it
    "incomplete beta": (
        times(lambda x: lax.betainc(F32(2), F32(3), x), lambda x: 12 * x * (1 - x) ** 2),
        (jnp.array([0.2, 0.5, 0.9], F32),),
        True,
        "ok",
    ),
    "Student's t": (
        times(
            lambda t: 1 - 0.5 * lax.betainc(F32(2.5), F32(0.5), 5 / (5 + t * t)),
            lambda t: 0.37960669 * (1 + t * t / 5) ** -3,
        ),
        (jnp.array([0.3, 1.0, 2.0], F32),),
        True,
        "ok",
    ),
    "Bessel": (
        times(lax.bessel_i1e, lambda x: lax.bessel_i0e(x) - lax.bessel_i1e(x) * (jnp.sign(x) + 1 / x)),
        (jnp.array([0.2, 5.0, 30.0], F32),),
        True,
        "ok",
    ),
    "sin x²": (
        times(lambda x: jnp.sin(x * x), lambda x: 2 * x * jnp.cos(x * x)),
        (jnp.array([3000.123, 0.3], F32),),
        True,
        "ok",
    ),
    # kinks, jumps and ends
    "within the slopes": (
        times(jax.nn.relu, lambda x: at(x, 0, 0.3, jnp.sign(x))),
        (jnp.array([0.0, 1.0], F32),),
        True,
        "kink",
    ),
    "outside the slopes": (
        times(jax.nn.relu, lambda x: at(x, 0, 1.3, jnp.sign(x))),
        (jnp.array([0.0, 1.0], F32),),
        False,
        "fail",
    ),
    "NaN at a kink": (
        times(jax.nn.relu, lambda x: at(x, 0, NAN, jnp.sign(x))),
        (jnp.array([0.0, 1.0], F32),),
        False,
        "fail",
    ),
    "a norm at 0": (
        with_rule(norm, lambda g, x: (g * jnp.where(norm(x) == 0, 0, x / norm(x)),)),
        (jnp.zeros(3, F32),),
        True,
        "kink",
    ),
    "a norm at 0, NaN": (with_rule(norm, lambda g, x: (g * x / norm(x),)), (jnp.zeros(3, F32),), False, "fail"),
    "a jump": (times(lambda x: jnp.where(x == 0, 5.0, x), jnp.ones_like), (jnp.array([0.0, 1.0], F32),), True, "jump"),
    "a step, NaN where it jumps": (
        times(lambda x: jnp.where(x > 1, x, 0), lambda x: jnp.where(x > 1, 1.0, 0.0) * (x - 1) / (x - 1)),
        (jnp.array([1.0, 3.0], F32),),
        False,
        "fail",
    ),
    "√(x³)": (
        times(lambda x: jnp.sqrt(x**3), lambda x: 1.5 * jnp.sqrt(x)),
        (jnp.array([0.0, 4.0], F32),),
        True,
        "end of the domain",
    ),
    "√(x³), NaN": (
        times(lambda x: jnp.sqrt(x**3), lambda x: 1.5 * x**2 / jnp.sqrt(x**3)),
        (jnp.array([0.0, 4.0], F32),),
        False,
        "fail",
    ),
    "arccos": (
        times(jnp.arccos, lambda x: -1 / jnp.sqrt(1 - x * x)),
        (jnp.array([1.0, -1.0, 0.3], F32),),
        True,
        "end of the domain",
    ),
    "arccos, 0": (
        times(jnp.arccos, lambda x: at(jnp.abs(x), 1, 0, -1 / jnp.sqrt(1 - x * x))),
        (jnp.array([1.0, -1.0, 0.3], F32),),
        False,
        "fail",
    ),
}


SPECIAL_FUNCTIONS = ("incomplete beta", "Student's t", "Bessel", "inside a cylinder")


@pytest.mark.parametrize("name", fast_if(lambda name: name not in SPECIAL_FUNCTIONS, POINTS))
def test_points(name):
    f, args, right, verdict = POINTS[name]
    report = check(f, *args, properties=["structure", "accuracy", "jacobian"])
    assert report.ok == right, report
    assert report.facts["truth"].startswith("exact arithmetic")
    assert verdict in {row.verdict for row in report.rows}, report
    assert "nan" not in {str(row.expected) for row in report.rows if row.property not in ("autodiff", "value")}
    assert blame(f, *args).ok == right


SECOND = {
    "|z|² at 0": with_rule(lambda z: jnp.abs(z) ** 2, lambda g, z: (2 * g.astype(z.dtype) * jnp.conj(z),)),
    "√(x²)³ at 0": times(lambda x: jnp.sqrt(x * x) ** 3, lambda x: 3 * x * jnp.abs(x)),
    "piecewise linear": times(lambda x: jnp.maximum(2 * x, x - 1) / 3, lambda x: jnp.where(x > -1, 2 / 3, 1 / 3)),
    "saturated": times(jax.nn.sigmoid, lambda x: jax.nn.sigmoid(x) * jax.nn.sigmoid(-x)),
    "log cosh": times(lambda x: jnp.logaddexp(x, -x), jnp.tanh),
}
ARGUMENTS = {
    "|z|² at 0": jnp.array([0j, 1 + 2j], jnp.complex64),
    "√(x²)³ at 0": jnp.array([0.0, 1.5], F32),
    "saturated": jnp.array([800.0, -800.0, 2.0], F32),
}


@pytest.mark.parametrize("name", SECOND)
def test_second_order(name):
    report = check(SECOND[name], ARGUMENTS.get(name, normal(4)), properties=["second_order"])
    assert report.ok, report
    assert {"reverse over reverse", "forward over reverse"} <= {row.property for row in report.rows}


def test_a_second_order_that_is_nan_is_no_excuse():
    """The first derivative is right at 0, and so is its own in forward mode; by reverse mode it is NaN."""
    nan = with_rule(lambda x: jnp.sum(x * x) ** 1.5, lambda g, x: (3 * g * x * jnp.sqrt(jnp.sum(x * x)),))
    assert not check(nan, jnp.zeros(3, F32), properties=["second_order"]).ok


def test_constants_are_those_of_the_trace_that_rule_and_forward_share():
    """0.1 is a float32 in a float32 product and a float64 beside float64 arguments: one constant, one value."""

    def scores(q, k):
        return (jnp.dot(q, k.T, preferred_element_type=jnp.float32) * 0.1).astype(q.dtype)

    def product(a, b):
        return jnp.dot(a, b, preferred_element_type=jnp.float32).astype(b.dtype)

    folded = lambda g, q, k: (product(g, k * 0.1), product(g.T, q * 0.1))  # noqa: E731
    q, k = normal(3, 4), normal(5, 4)
    assert check(with_rule(scores, folded), q, k, properties=["accuracy"]).ok
    wrong = lambda g, q, k: (product(g, k * 0.1), product(g.T, q * 0.1001))  # noqa: E731
    assert not check(with_rule(scores, wrong), q, k, properties=["accuracy"]).ok
    products = times(lambda x: 0.044715 * x**3 * 0.79788456, lambda x: 3 * 0.044715 * 0.79788456 * x * x)
    assert check(products, normal(4), properties=["accuracy"]).ok


def test_random_bits_are_those_of_the_given_dtype():
    """Under 64-bit types a mask of many entries is another one."""
    key = jax.random.key(3)
    mask = lambda x: jax.random.bernoulli(key, 0.5, x.shape)  # noqa: E731
    dropout = times(lambda x: jnp.where(mask(x), x, 0), lambda x: mask(x))
    assert check(dropout, normal(64), properties=["accuracy"]).ok
    assert not check(times(dropout.fun, lambda x: ~mask(x)), normal(64), properties=["accuracy"]).ok


@pytest.mark.parametrize("budget", fast_if(lambda budget: budget == 1, [exact_oracle.BUDGET, 1]))
def test_random_weights_are_those_of_the_given_dtype(monkeypatch, budget):
    """Keys are unpacked inside; beyond the budget float64 autodiff must draw the same floats, too."""
    monkeypatch.setattr(exact_oracle, "BUDGET", budget)

    def layer(x):
        first, second = jax.random.split(jax.random.key(1))
        return x * jax.random.uniform(first, x.shape) + jax.random.uniform(second, x.shape)

    def bwd(g):
        return (g * jax.random.uniform(jax.random.split(jax.random.key(1))[0], g.shape),)

    fast = {"properties": ["accuracy"], "draws": 2}
    assert check(with_rule(layer, lambda g, x: bwd(g)), normal(2), **fast).ok
    assert not check(with_rule(layer, lambda g, x: bwd(1.001 * g)), normal(2), **fast).ok


def test_a_loop_with_a_condition_for_each_lane():
    def halved(x):
        return lax.while_loop(lambda y: y > 1, lambda y: y / 2, x)

    half, wrong = jax.custom_jvp(halved), jax.custom_jvp(halved)
    half.defjvp(lambda p, t: (halved(*p), halved(*p) / p[0] * t[0]))
    wrong.defjvp(lambda p, t: (halved(*p), t[0]))
    x = jnp.array([0.7, 3.0, 9.0], F32)
    assert check(jax.vmap(half), x, properties=["accuracy"]).ok and blame(jax.vmap(half), x).ok
    assert not check(jax.vmap(wrong), x, properties=["accuracy"]).ok


def test_beyond_the_budget_entries_are_confirmed_one_by_one(monkeypatch):
    """Thousands of entries, one of them at a tie where autodiff is wrong."""
    monkeypatch.setattr(exact_oracle, "BUDGET", 10**6)
    z = normal(64, 100).at[3, 7].set(0.0)
    y = jnp.asarray(np.arange(z.size).reshape(z.shape) % 2, F32)
    right = with_rule(bce, lambda g, z, y: (g * (jax.nn.sigmoid(z) - y), -g * z))
    wrong = with_rule(bce, lambda g, z, y: (g * (at(z, 0, -0.5, jax.nn.sigmoid(z)) - y), -g * z))
    for f, verdict in ((right, True), (wrong, False)):
        report = check(f, z, y, properties=["accuracy"], draws=1)
        assert report.ok == verdict, report
        assert "entries confirmed" in report.facts["exact arithmetic"]
    assert [row.index for row in report.failures][:1] == [(3, 7)]


def test_entries_cost_what_their_loops_turn_out_to_cost(monkeypatch):
    """A program counts a loop of unknown length once: its trips are known when it has run."""
    monkeypatch.setattr(exact_oracle, "BUDGET", budget := 10**7)

    def f(diff, rest):
        step = lambda c: (jnp.maximum(jnp.sin(c[0]), jnp.sin(c[0][::-1])), c[1] + 1)  # noqa: E731
        return [lax.while_loop(lambda c: c[1] < 80, step, (diff[0], 0))[0]], rest

    x = jnp.ones(8)
    oracle = exact_oracle.ExactOracle(f, [x], [], ["x"], sweeps=1)
    found = oracle.entries([jnp.ones(8)], [(0, (i,)) for i in range(8)])
    assert oracle.truth is not None and 0 < len(found) < 8 and oracle.truth.spent <= oracle.spent < 2 * budget


def test_truth_needs_no_compiler():
    """Only the rule and autodiff are compiled for a layer norm, 4×16, nothing for the truth."""
    from refgrad.verify.exact_oracle import ExactOracle

    def layer_norm(x, w, b):
        m = jnp.mean(x, -1, keepdims=True)
        return (x - m) * lax.rsqrt(jnp.mean((x - m) ** 2, -1, keepdims=True) + 1e-5) * w[None] + b[None]

    args = [normal(4, 16), normal(16), normal(16)]
    flat = lambda diff, rest: ([layer_norm(*diff)], [])  # noqa: E731
    with compilations() as compiled:
        oracle = ExactOracle(flat, args, [], ["x", "w", "b"], sweeps=8)
        found = oracle.gradient(args, [normal(4, 16)])
        seconds = oracle.hessian(args, args, [normal(4, 16)])
    assert oracle.whole and found is not None and seconds is not None
    assert not compiled
