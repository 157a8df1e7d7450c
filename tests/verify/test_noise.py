"""Entries without digits: a right rule passes where autodiff has no more of them, and a wrong one does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refgrad.verify import check
from tests.lanes import fast_if

FAST = {"draws": 2, "order": 1, "properties": ["structure", "accuracy", "jacobian", "linearity"]}


def numbers(seed, shape, scale=1.0):
    return jnp.asarray(scale * np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def ruled(f, factor=1.0):
    """`f` whose rule is autodiff of `f`, times `factor`."""
    op = jax.custom_vjp(lambda x: f(x))
    op.defvjp(lambda x: (f(x), x), lambda x, ct: (factor * jax.vjp(f, x)[1](ct)[0],))
    return op


def softmax(x):
    y = jnp.exp(x - jax.lax.stop_gradient(jnp.max(x, -1, keepdims=True)))
    return y / jnp.sum(y, -1, keepdims=True)


def difference_of_roots(x):
    return (jnp.sqrt(4e3 + jnp.abs(x)) - 4e3**0.5) * 300


def distance_beyond(x):
    return jnp.log1p(jnp.exp(-jnp.abs(x))) + jnp.square(jnp.sqrt(2 + x * x) - 1.25)


def normalised_pairs(x):
    """Only the order of two entries is left of them, apart from 1e-6."""
    y = x.reshape(2, 2, 2)
    y = y - jnp.mean(y, -1, keepdims=True)
    return (y / jnp.sqrt(jnp.mean(y * y, -1, keepdims=True) + 1e-6)).reshape(x.shape)


CASES = {
    "a saturated softmax": (softmax, numbers(5, (3, 5), 30.0)),
    "a softmax of two": (softmax, jnp.array([[0.0, 16.5], [-17.25, 0.5]], jnp.float32)),
    "a difference": (difference_of_roots, numbers(2, (6,))),
    "a distance": (distance_beyond, numbers(3, (6,), 4.0)),
    "normalised pairs": (normalised_pairs, numbers(0, (2, 4))),
}


@pytest.mark.parametrize("name", CASES)
def test_right(name):
    f, x = CASES[name]
    for op in (f, ruled(f)):
        report = check(op, x, **FAST)
        assert report.ok, str(report)


WRONG = [(name, factor) for name in CASES for factor in (1.0 + 1e-9, 1.001, 0.0)]


@pytest.mark.parametrize(
    ("name", "factor"), fast_if(lambda name, factor: factor == 1.001 or name == "a difference", WRONG)
)
def test_wrong(name, factor):
    f, x = CASES[name]
    tiny = abs(factor - 1) < 1e-6
    with jax.enable_x64(tiny):
        assert not check(ruled(f, factor), x.astype(jnp.float64) if tiny else x, **FAST).ok


def test_another_order_of_operations_where_the_truth_moves():
    """A 500-fold cancellation: the same rule, mapped, rounds otherwise."""

    def parabola(x):
        return jnp.sign(x) * (jnp.square(500 * (jnp.sqrt(1 + 4e-3 * (1.001 + jnp.abs(x))) - 1)) - 1)

    report = check(parabola, numbers(0, (4,)), order=1, properties=["vmap", "scan"])
    assert report.ok, str(report)


SHIFTS = {
    "softmax": lambda x, b: softmax(x + b[:, None]),
    "differences": lambda x, b: jnp.sin(jnp.diff(x * x + b[:, None])),
    "variance": lambda x, b: jnp.var(jnp.tanh(x) + b[:, None], -1),
}


@pytest.mark.parametrize("name", fast_if(lambda name: name == "softmax", SHIFTS))
@pytest.mark.parametrize("factor", [1.0, 1.001])
def test_an_argument_that_cancels(name, factor):
    """Its gradient is 0 in truth, and the last places of other numbers in every program."""
    f = SHIFTS[name]
    op = jax.custom_vjp(lambda x, b: f(x, b))

    def backward(residuals, ct):
        dx, db = jax.vjp(f, *residuals)[1](ct)
        return dx, db + (factor - 1) * jnp.sum(dx * dx)

    op.defvjp(lambda x, b: (f(x, b), (x, b)), backward)
    args = numbers(1, (3, 4)), jnp.zeros(3)
    assert check(op, *args, draws=2, order=1, properties=["structure", "vmap", "scan", "accuracy"]).ok == (factor == 1)


SATURATED = {
    "tanh": (jnp.tanh, lambda y: 1 - y * y, jnp.array([5.0, 5.1], jnp.float32)),
    "sigmoid": (jax.nn.sigmoid, lambda y: y * (1 - y), jnp.array([-11.0, 12.0], jnp.float32)),
}


@pytest.mark.parametrize("name", SATURATED)
@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_a_slope_from_a_rounded_value(name, factor):
    """1 − y² has as few digits as autodiff, unless that is lucky at these very arguments."""
    f, slope, x = SATURATED[name]
    op = jax.custom_vjp(lambda x: f(x))
    op.defvjp(lambda x: (f(x), f(x)), lambda y, ct: (factor * ct * slope(y),))
    assert check(op, x, **FAST).ok == (factor == 1.0)


@pytest.mark.parametrize("size", [1e-30, 1e-12, 1.0])
@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_small_arguments(size, factor):
    """A function that does not notice its argument has a gradient all the same."""
    assert check(ruled(jnp.exp, factor), jnp.array([size, 2 * size], jnp.float32), **FAST).ok == (factor == 1.0)


def test_a_saturated_second_derivative():
    """Autodiff of a right rule has few digits there."""
    op = jax.custom_vjp(lambda x: jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x))))
    op.defvjp(lambda x: (op.fun(x), x), lambda x, ct: (ct * jax.nn.sigmoid(x),))
    report = check(op, jnp.array([10.0, -11.0], jnp.float32), properties=["second_order"])
    assert report.ok and len(report.rows) > 1, str(report)
