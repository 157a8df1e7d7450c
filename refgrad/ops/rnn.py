"""A recurrent layer over a whole sequence: `h_t = tanh(x_t W_x + h_{t−1} W_h + bias)`, `t = 1 … s`.

Forward. `u = x W_x + bias` is one product over all times; only the s products with `W_h` wait for each other. `z_t` is
the argument of tanh.

Derivation. Backpropagation through time. `h_t` enters the loss in two ways: by itself, with the cotangent `dh_t`, and
through `h_{t+1}` and all that follows. Let `δ_t` be the gradient with respect to `z_t`, and `e_t` what comes back to
`h_t` from the future. `h_t` has `dh_t + e_t` in all, `z_t = u_t + h_{t−1} W_h` hands `δ_t W_hᵀ` to `h_{t−1}`, and
nothing comes from beyond the end:

    e_s = 0        δ_t = (dh_t + e_t) tanh′(z_t)        e_{t−1} = δ_t W_hᵀ        t = s … 1

so that `e_0` is `dh_0`. Written out, a later gradient meets an earlier state through a product over time of
`diag(tanh′(z_t)) W_hᵀ`: it vanishes or explodes. Every time has the same weights, whose gradients are sums over t; a
sum over t and over the batch is one product with all rows at once, outside the loop, as are dx and the slopes:

    dx = δ W_xᵀ        dW_x = Σ_t x_tᵀ δ_t        dW_h = Σ_t h_{t−1}ᵀ δ_t        dbias = Σ_t δ_t

Kept: x, `h_0`, h (the result itself), both weights, and z in the dtype of sums: h alone would have to give `1 − h²`,
which cancels near `|h| = 1`, and in a narrow dtype is lost there. (Autodiff of the loop makes `dW_h` of s products,
added one by one.) Cost: the products, `2bsh(i + h)` forward and twice that backward; `tanh`'s slope; the document
prints no count. Source: D1, "Backpropagation Through Time".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, product, vary_with, wide
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec, Special
from refgrad.ops.tanh import slope
from refgrad.symbols import a, b, h, i, item, s


class Residuals(NamedTuple):
    """x (..., s, i), h_0 (..., h), W_x (i, h), W_h (h, h), h and z at all times (..., s, h), and the bias's type."""

    x: Array
    h_0: Array
    w_x: Array
    w_h: Array
    h: Array
    z: Array
    bias: PrimalType


def _check_args(x: Array, h_0: Array, w_x: Array, w_h: Array, bias: Array) -> None:
    check_args("rnn", w_h=(w_h, "h h"), w_x=(w_x, "i h"), bias=(bias, "h"), x=(x, "... s i"), h_0=(h_0, "... h"))
    if not x.shape[-2]:
        raise ValueError(f"rnn: x has shape {x.shape}, but time, its last axis but one, needs a step at least")


def _run(x: Array, h_0: Array, w_x: Array, w_h: Array, bias: Array) -> tuple[Array, Array]:
    """h and z at all times, (..., s, h) each."""
    u = product("...si,ih->...sh", x, w_x)
    u = u + jnp.broadcast_to(wide(bias), u.shape)

    def step(before: Array, u_t: Array) -> tuple[Array, tuple[Array, Array]]:
        z_t = u_t + product("...h,hk->...k", before, w_h)
        h_t = jnp.tanh(z_t).astype(before.dtype)
        return h_t, (h_t, z_t)

    _, (h, z) = jax.lax.scan(step, vary_with(h_0, u, w_h), jnp.moveaxis(u, -2, 0))
    return jnp.moveaxis(h, 0, -2), jnp.moveaxis(z, 0, -2)


@custom_vjp
@jax.named_scope("rnn")
def rnn(x: Array, h_0: Array, w_x: Array, w_h: Array, bias: Array) -> Array:
    """Return every state of h_t = tanh(x_t W_x + h_{t−1} W_h + bias).

    Args:
      x: Inputs (..., s, i), s ≥ 1.
      h_0: The first state (..., h).
      w_x: (i, h).
      w_h: (h, h).
      bias: (h,).

    Returns:
      The states h_1 … h_s, (..., s, h).

    Raises:
      ValueError: The shapes do not agree, or s is 0.
      TypeError: A dtype is not floating, or the dtypes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> f"{ops.rnn(jnp.ones((2, 1)), jnp.zeros(1), jnp.ones((1, 1)), jnp.zeros((1, 1)), jnp.zeros(1))[0, 0]:.3f}"
      '0.762'
    """
    _check_args(x, h_0, w_x, w_h, bias)
    return _run(x, h_0, w_x, w_h, bias)[0]


@jax.named_scope("rnn")
def _fwd(x: Array, h_0: Array, w_x: Array, w_h: Array, bias: Array) -> tuple[Array, Residuals]:
    _check_args(x, h_0, w_x, w_h, bias)
    h, z = _run(x, h_0, w_x, w_h, bias)
    return h, Residuals(x, h_0, w_x, w_h, h, z, PrimalType.of(bias))


def through_time(z: Array, w_h: Array, dh: Array) -> tuple[Array, Array]:
    """δ_1 … δ_s (..., s, h) and e_0 (..., h): the recurrence from the last state to the first."""

    def step(e: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
        dh_t, slope_t = at
        delta = (dh_t + e) * slope_t
        return product("...k,hk->...h", delta, wide(w_h)), delta

    at = jnp.moveaxis(wide(dh), -2, 0), jnp.moveaxis(slope(z), -2, 0)
    e_0, delta = jax.lax.scan(step, jnp.zeros_like(at[0][0]), at, reverse=True)
    return jnp.moveaxis(delta, 0, -2), e_0


@jax.named_scope("rnn")
def _bwd(kept: Residuals, dh: Array) -> tuple[Array, Array, Array, Array, Array]:
    x, h_0, w_x, w_h, h, z, bias = kept
    like_x, like_w_x, like_w_h = map(PrimalType.of, (x, w_x, w_h))
    before = jnp.concatenate([jnp.expand_dims(h_0, -2), h[..., :-1, :]], axis=-2)  # h_0 … h_{s−1}
    delta, dh_0 = through_time(z, w_h, dh)
    dx = product("...sh,ih->...si", delta, wide(w_x), like_x.sharding)
    dw_x = product("...si,...sh->ih", wide(x), delta, like_w_x.sharding)
    dw_h = product("...sh,...sk->hk", wide(before), delta, like_w_h.sharding)
    dbias = jnp.sum(delta, axis=tuple(range(delta.ndim - 1)))
    return like_x(dx), PrimalType.of(h_0)(dh_0), like_w_x(dw_x), like_w_h(dw_h), bias(dbias)


rnn.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=rnn,
    source="D1, Backpropagation Through Time",
    arguments={"x": "b s i", "h_0": "b h", "w_x": "i h", "w_h": "h h", "bias": "h"},
    scale={"w_x": i**-0.5, "w_h": h**-0.5},
    # the bias and the sum of the two products, an addition each
    forward=OpCost(2 * b * s * h * (i + h) + 2 * b * s * h, b * s * h),
    backward=OpCost(4 * b * s * h * (i + h) + 12 * b * s * h + (b * s - 1) * h, 2 * b * s * h),
    adjustments={
        "products, not counted": 4 * b * s * h * (i + h),
        "tanh's slope, 4 σ(2z) σ(−2z)": 10 * b * s * h,
        "δ from dh, e and the slope": 2 * b * s * h,
        "bias": (b * s - 1) * h,
    },
    residuals=item * (b * s * i + b * h + i * h + h * h + b * s * h) + a * b * s * h,
    special={
        "saturated states": Special(values={"bias": lambda x: x + 30}),
        "a recurrence that explodes": Special(values={"w_h": lambda x: 3 * x}),
    },
)
