"""Dense layer with its weight stored out × in: `y = x wᵀ + bias`.

Forward. Over the `b·s` rows r of x, `y_ro = Σ_i x_ri w_oi + bias_o`. `linear` is the same with the weight in × out.

Derivation. `x_ri` reaches the loss through every column of its row, `dx_ri = Σ_o dy_ro w_oi`; `w_oi` through column o
of every row, `dw_oi = Σ_r dy_ro x_ri`; `bias_o` is broadcast to every row and gets their sum:

    dx = dy w        dw = dyᵀ x        dbias = Σ_r dy

Kept: x and w. The bias is not needed, only its type. Cost: two products, `2·bs·i·o` each, and the bias's `(bs − 1)·o`
additions; the document prints no count. Source: D1, "Matrix Backpropagation"; D3, "Activation functions" `(W₁ x + b₁)`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, product, wide
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec
from refgrad.symbols import b, i, item, o, s


class Residuals(NamedTuple):
    """x (..., i), w (o, i), and the bias's type."""

    x: Array
    w: Array
    bias: PrimalType


@custom_vjp
@jax.named_scope("dense")
def dense(x: Array, w: Array, bias: Array) -> Array:
    """Return x wᵀ + bias, the layout of the documents and of PyTorch.

    Args:
      x: (..., i).
      w: (o, i).
      bias: (o,).

    Returns:
      (..., o), in x's dtype.

    Raises:
      ValueError: The shapes do not agree.
      TypeError: A dtype is not floating, or the dtypes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> ops.dense(jnp.array([1.0, 2.0]), jnp.array([[3.0, 4.0]]), jnp.array([0.5])).tolist()
      [11.5]
    """
    check_args("dense", x=(x, "... i"), w=(w, "o i"), bias=(bias, "o"))
    y = product("...i,oi->...o", x, w)
    return (y + jnp.broadcast_to(wide(bias), y.shape)).astype(x.dtype)


@jax.named_scope("dense")
def _fwd(x: Array, w: Array, bias: Array) -> tuple[Array, Residuals]:
    return dense.fun(x, w, bias), Residuals(x, w, PrimalType.of(bias))


@jax.named_scope("dense")
def _bwd(kept: Residuals, dy: Array) -> tuple[Array, Array, Array]:
    like_x, like_w = PrimalType.of(kept.x), PrimalType.of(kept.w)
    dx = product("...o,oi->...i", dy, kept.w, like_x.sharding)
    dw = product("...o,...i->oi", dy, kept.x, like_w.sharding)
    dbias = jnp.sum(wide(dy), axis=tuple(range(dy.ndim - 1)))
    return like_x(dx), like_w(dw), kept.bias(dbias)


dense.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=dense,
    source="D1, Matrix Backpropagation",
    arguments={"x": "b s i", "w": "o i", "bias": "o"},
    forward=OpCost(2 * b * s * i * o + b * s * o),
    backward=OpCost(4 * b * s * i * o + (b * s - 1) * o),
    adjustments={"two products, not counted": 4 * b * s * i * o, "bias": (b * s - 1) * o},
    residuals=item * (b * s * i + i * o),
)
