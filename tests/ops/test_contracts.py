"""Contracts of the small operations beyond their formulas: kinks, saturation, probabilities of 0 and 1."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refgrad import ops

F32, I32 = jnp.float32, jnp.int32
INF, NAN = np.inf, np.nan


def array(*values):
    return jnp.array(values, F32)


def slope(op, x, *statics):
    """The derivative of an element-wise operation, by its rule and by autodiff of its plain forward."""
    pull = [jax.vjp(lambda x, f=f: f(x, *statics), x)[1] for f in (op, op.fun)]
    return [np.asarray(back(jnp.ones_like(x))[0]) for back in pull]


@pytest.mark.parametrize(
    ("op", "statics", "at_zero"),
    [(ops.relu, (), 0), (ops.leaky_relu, (0.25,), 0.25), (ops.elu, (0.5,), 0.5), (ops.elu, (1.0,), 1)],
    ids=["relu", "leaky_relu", "elu", "elu of slope 1"],
)
def test_the_derivative_at_zero(op, statics, at_zero):
    for got in slope(op, array(0.0, -0.0), *statics):
        np.testing.assert_array_equal(got, np.float32(at_zero))


def test_a_nan_stays_one():
    for op, statics in ((ops.relu, ()), (ops.leaky_relu, (0.1,)), (ops.elu, (1.0,))):
        assert np.isnan(op(array(NAN), *statics)).all()


def test_d1s_example():
    """D1.6: x = [−2, 1, 3] has gradient [0, 1, 1]."""
    np.testing.assert_array_equal(slope(ops.relu, array(-2, 1, 3))[0], [0, 1, 1])


def sigma(x):
    """The logistic function in float64."""
    return 1 / (1 + np.exp(-x))


SATURATED = {  # the true derivative in float64
    "sigmoid": lambda x: sigma(x) * sigma(-x),
    "tanh": lambda x: 4 * sigma(2 * x) * sigma(-2 * x),
    "silu": lambda x: sigma(x) * (1 + x * sigma(-x)),
}


@pytest.mark.parametrize("name", SATURATED)
def test_saturated_entries_keep_their_digits(name):
    """Each entry for itself; with 1 − σ(x) for σ(−x), those above zero would have none left."""
    for x in (np.linspace(-30, -10, 9), np.linspace(30, 10, 9)):
        got, by_autodiff = slope(getattr(ops, name), array(*x))
        true = SATURATED[name](x)
        np.testing.assert_allclose(got, true, rtol=1e-6)
        if name != "silu" and x[0] > 17:
            assert by_autodiff[0] == 0  # σ(x) (1 − σ(x)), the formula as printed


def test_gelu_by_erf_has_no_digits_cancelled_below_zero():
    x = np.linspace(-6, -2, 9)
    normal = np.array([math.erfc(-v / math.sqrt(2)) / 2 for v in x])
    true = normal + x * np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(slope(ops.gelu_erf, array(*x))[0], true, rtol=1e-5)
    np.testing.assert_allclose(ops.gelu_erf(array(*x)), x * normal, rtol=1e-5)


def test_probabilities_of_zero_and_one():
    """D4.2: surely right costs nothing, surely wrong is infinite, and neither is NaN; on logits all is finite."""
    p, y = array(0, 1, 0, 1), jnp.array([0, 1, 1, 0], I32)
    each = [jax.value_and_grad(ops.binary_cross_entropy)(p[k : k + 1], y[k : k + 1]) for k in range(4)]
    np.testing.assert_array_equal([loss for loss, _ in each], [0, 0, INF, INF])
    np.testing.assert_array_equal(np.ravel([dp for _, dp in each]), [1, -1, -INF, INF])
    z = array(-200, 200, -200, 200)
    loss, dz = jax.value_and_grad(ops.binary_cross_entropy_with_logits)(z, y)
    assert loss == 100
    np.testing.assert_array_equal(dz, np.array([0, 0, -1, 1]) / 4)


def test_the_two_binary_cross_entropies_agree(x64):
    z = jnp.linspace(-4, 4, 10, dtype=jnp.float64)
    y = jnp.arange(10, dtype=I32) % 2
    of_logits = jax.value_and_grad(ops.binary_cross_entropy_with_logits)(z, y)
    of_probabilities = jax.value_and_grad(lambda z: ops.binary_cross_entropy(ops.sigmoid(z), y))(z)
    np.testing.assert_allclose(of_logits[0], of_probabilities[0], rtol=1e-14)
    np.testing.assert_allclose(of_logits[1], of_probabilities[1], rtol=1e-13)


def test_small_probabilities_keep_their_digits():
    """log(1 − p) at p = 1e-9 is −1e-9, not 0; a logit of −20 likewise."""
    zero = jnp.zeros(1, I32)
    np.testing.assert_allclose(ops.binary_cross_entropy(array(1e-9), zero), 1e-9, rtol=1e-6)
    np.testing.assert_allclose(ops.binary_cross_entropy_with_logits(array(-20), zero), 2.0611537e-9, rtol=1e-6)


@pytest.mark.parametrize("name", ["binary_cross_entropy", "binary_cross_entropy_with_logits"])
@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_that_is_none_is_nan(name, label):
    found = jax.value_and_grad(getattr(ops, name))(array(0.5, 0.5), jnp.array([1, label], I32))
    assert np.isnan(found[0])
    assert np.isnan(found[1]).tolist() == [False, True]


def test_hinge_at_the_margin_and_outside_the_classes():
    """s − s_y + 1 = 0 for the second score: no gradient there, by rule and by autodiff; the third pays 2."""
    x, target = array(3, 2, 4), jnp.array(0, I32)
    for f in (ops.hinge, ops.hinge.fun):
        loss, dx = jax.value_and_grad(f)(x, target, 1.0)
        assert loss == 2
        np.testing.assert_array_equal(dx, [-1, 0, 1])
    for outside in (-1, 3):
        assert np.isnan(ops.hinge(x, jnp.array(outside, I32), 1.0))


def test_the_sign_that_d3_prints_in_hinges_expanded_form_is_wrong():
    """D3.8: with + W_y x the target's score would be pushed down, its gradient's sign turned."""
    x, target = array(3, 2.5, 4), jnp.array(0, I32)
    printed = jax.grad(lambda x: jnp.sum(ops.relu(x[1:] + x[0] + 1)))(x)
    right = jax.grad(ops.hinge)(x, target, 1.0)
    np.testing.assert_array_equal(printed, [2, 1, 1])
    np.testing.assert_array_equal(right, [-2, 1, 1])


def test_gates_distribute_swap_add_and_route():
    """D3.6: f = (x + y) z at (−2, 5, −4), and a maximum with a tie."""
    f = jax.value_and_grad(lambda x, y, z: ops.mul(ops.add(x, y), z), (0, 1, 2))
    value, found = f(*map(jnp.float32, (-2, 5, -4)))
    assert (value, *found) == (-12, -4, -4, 3)
    dx, dy = jax.vjp(ops.maximum, array(1, 2, 3), array(3, 2, 1))[1](array(4, 4, 4))
    np.testing.assert_array_equal(dx, [0, 2, 4])
    np.testing.assert_array_equal(dy, [4, 2, 0])
    assert jax.grad(lambda x: ops.mul(*ops.copy(x)))(jnp.float32(3)) == 6  # D1.3: x², by a fan-out
