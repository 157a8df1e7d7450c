"""The forward passes of rnn, batch_norm, dropout and conv2d against their definitions in NumPy, index by index."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refgrad import cost, ops, verify
from refgrad.ops import TABLE
from refgrad.symbols import evaluate
from tests.ops.cases import DIMS

VALID = dataclasses.replace(TABLE["conv2d"], statics={"padding": "VALID"})


def sample(name, dims=DIMS[0]):
    return [np.asarray(x) for x in TABLE[name].sample(3, dims, jnp.float64)]


def test_rnn_steps_through_time(x64):
    x, h_0, w_x, w_h, bias = sample("rnn")
    states = np.asarray(ops.rnn(x, h_0, w_x, w_h, bias))
    before = h_0
    for t in range(x.shape[1]):
        before = np.tanh(x[:, t] @ w_x + before @ w_h + bias)
        np.testing.assert_allclose(states[:, t], before, rtol=1e-13)


def test_batch_norm_standardises_each_column_over_every_row(x64):
    x, gamma, beta = sample("batch_norm")
    rows = x.reshape(-1, x.shape[-1])
    expected = gamma * (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5) + beta
    np.testing.assert_allclose(ops.batch_norm(x, gamma, beta, 1e-5).reshape(rows.shape), expected, rtol=1e-12)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("dims", DIMS[:2], ids=str)
def test_conv2d_sums_over_each_window(padding, dims, x64):
    x, kernel, bias = sample("conv2d", dims)
    (H, W), (k, l) = x.shape[1:3], kernel.shape[:2]
    padded = np.pad(x, ((0, 0), ((k - 1) // 2, k // 2), ((l - 1) // 2, l // 2), (0, 0))) if padding == "SAME" else x
    y = np.asarray(ops.conv2d(x, kernel, bias, padding))
    assert y.shape[1:3] == ((H, W) if padding == "SAME" else (H - k + 1, W - l + 1))
    for p, q in itertools.product(*map(range, y.shape[1:3])):
        window = padded[:, p : p + k, q : q + l, :, None]
        np.testing.assert_allclose(y[:, p, q], (window * kernel).sum((1, 2, 3)) + bias, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dims", DIMS[:2], ids=str)
def test_conv2d_without_padding_holds_at_its_price(dims):
    b, H, W, i, o, k, l = (dims[name] for name in ("b", "H", "W", "i", "o", "k", "l"))
    pixels = (H - k + 1) * (W - l + 1)
    flops = 4 * b * i * o * k * l * pixels + (b * pixels - 1) * o
    assert cost.xla_backward(VALID.bound(dims), *VALID.shapes(dims, jnp.float32)).flops == flops
    assert flops < evaluate(TABLE["conv2d"].backward.flops, dims)
    verify.assert_ok(VALID.bound(dims), *VALID.sample(0, dims, jnp.float32), properties=("structure", "accuracy"))


def test_dropout_keeps_the_expected_share_and_its_gradient_the_same_mask():
    x, key, rate = jnp.ones(100_000), jax.random.key(7), 0.3
    y, pullback = jax.vjp(lambda x: ops.dropout(x, key, rate), x)
    (dx,) = pullback(jnp.ones_like(x))
    assert set(np.unique(y)) == {0, np.float32(1 / 0.7)}
    assert jnp.array_equal(dx, y)
    assert abs(float(jnp.mean(y)) - 1) < 5 * (rate / (1 - rate) / x.size) ** 0.5  # five standard deviations
    assert not jnp.array_equal(y, ops.dropout(x, jax.random.key(8), rate))
    assert jnp.array_equal(ops.dropout(x, key, 0.0), x)


def test_dropouts_mask_is_the_same_with_64_bits_on():
    x, key = jnp.ones((6, 5), jnp.float32), jax.random.key(7)
    without = ops.dropout(x, key, 0.5)
    with jax.enable_x64(True):
        assert jnp.array_equal(ops.dropout(x, key, 0.5), without)
