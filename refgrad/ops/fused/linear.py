"""Linear layer over rows: `z = x w + bias`, with all axes of x but the last taken as one axis of rows.

Derivation. `linear` gives `dx = dz wᵀ`, `dw = Σ_r x_r dz_rᵀ`, `dbias = Σ_r dz_r` over the `b·s` rows r. With X and dZ
the rows one under the other, both sums over (b, s) are sums over one axis, and every product is one of two matrices:

    dX = dZ wᵀ        dw = Xᵀ dZ        dbias = Σ_r dZ_r

Kept: x and w. Cost: that of `linear`: no FLOP is won, but a reduction over two axes, and with it a transposition.
Source: D2, "Tensor Contractions".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, lift, product, rows, weight_grad, wide
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpSpec
from refgrad.ops.linear import SPEC as PLAIN


class Residuals(NamedTuple):
    """x (..., i), w (i, o), and the bias's type."""

    x: Array
    w: Array
    bias: PrimalType


def input_gradient(dz: Array, w: Array) -> Array:
    """dZ wᵀ (..., i) of dz (..., o), in the dtype of sums."""
    return product("ro,io->ri", rows(dz), w).reshape(*dz.shape[:-1], w.shape[0])


def parameter_gradients(x: Array, dz: Array, w: PrimalType, bias: PrimalType) -> tuple[Array, Array]:
    """Xᵀ dZ and Σ_r dZ_r, of x (..., i) and dz (..., o)."""
    x, dz = rows(x), rows(dz)
    return w(weight_grad(x, dz, w.sharding)), bias(jnp.sum(wide(dz), axis=0))


@custom_vjp
@jax.named_scope("linear")
def linear(x: Array, w: Array, bias: Array) -> Array:
    """Return x w + bias, the layout of GPT-2's checkpoints.

    Args:
      x: (..., i).
      w: (i, o).
      bias: (o,).

    Returns:
      (..., o), in x's dtype.

    Raises:
      ValueError: The shapes do not agree.
      TypeError: A dtype is not floating, or the dtypes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> ops.fused.linear(jnp.array([1.0, 2.0]), jnp.array([[3.0], [4.0]]), jnp.array([0.5])).tolist()
      [11.5]
    """
    check_args("fused.linear", x=(x, "... i"), w=(w, "i o"), bias=(bias, "o"))
    z = product("ri,io->ro", rows(x), w) + lift(wide(bias), 2)
    return z.astype(x.dtype).reshape(*x.shape[:-1], w.shape[1])


@jax.named_scope("linear")
def _fwd(x: Array, w: Array, bias: Array) -> tuple[Array, Residuals]:
    return linear.fun(x, w, bias), Residuals(x, w, PrimalType.of(bias))


@jax.named_scope("linear")
def _bwd(kept: Residuals, dz: Array) -> tuple[Array, Array, Array]:
    dx = PrimalType.of(kept.x)(input_gradient(dz, kept.w))
    return dx, *parameter_gradients(kept.x, dz, PrimalType.of(kept.w), kept.bias)


linear.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=linear,
    source=PLAIN.source,
    arguments=PLAIN.arguments,
    forward=PLAIN.forward,
    backward=PLAIN.backward,
    published_flops=PLAIN.published_flops,
    adjustments=PLAIN.adjustments,
    residuals=PLAIN.residuals,
)
