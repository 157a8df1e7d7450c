"""Matrix product on activations: `z = x w`, the weight stored in × out, no bias.

Forward. Over the rows r of x, `z_ro = Σ_i x_ri w_io`.

Derivation. `w_io` reaches the loss through column o alone, in every row: `∂z_ro'/∂w_io = x_ri` where o' = o, else 0, so
`dw_io = Σ_r x_ri dz_ro`, a sum over the rows and not over a width. `x_ri` reaches it through every column of its own
row, so `dx_ri = Σ_o dz_ro w_io`:

    dx = dz wᵀ        dw = xᵀ dz

The transpose stands on x in dw: `(i, r) × (r, o)` is the only product of the two that has w's shape. Kept: x and w.
Cost: two products, `2·bs·i·o` each (n multiplications with `n − 1` additions counted as 2n), as in the document;
without dx, which an input that is data does not need, one. Source: D0, "Gradient with respect to W₂", "… H₁", "… W₁",
"… X".
"""

from typing import NamedTuple

import jax
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, product
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec
from refgrad.symbols import b, i, item, o, s


class Residuals(NamedTuple):
    """x (..., i) and w (i, o)."""

    x: Array
    w: Array


@custom_vjp
@jax.named_scope("matmul")
def matmul(x: Array, w: Array) -> Array:
    """Return x w.

    Args:
      x: (..., i).
      w: (i, o).

    Returns:
      (..., o), in x's dtype.

    Raises:
      ValueError: The shapes do not agree.
      TypeError: A dtype is not floating, or the dtypes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> ops.matmul(jnp.array([1.0, 2.0]), jnp.array([[3.0], [4.0]])).tolist()
      [11.0]
    """
    check_args("matmul", x=(x, "... i"), w=(w, "i o"))
    return product("...i,io->...o", x, w).astype(x.dtype)


@jax.named_scope("matmul")
def _fwd(x: Array, w: Array) -> tuple[Array, Residuals]:
    return matmul.fun(x, w), Residuals(x, w)


@jax.named_scope("matmul")
def _bwd(kept: Residuals, dz: Array) -> tuple[Array, Array]:
    like_x, like_w = PrimalType.of(kept.x), PrimalType.of(kept.w)
    dx = product("...o,io->...i", dz, kept.w, like_x.sharding)
    dw = product("...i,...o->io", kept.x, dz, like_w.sharding)
    return like_x(dx), like_w(dw)


matmul.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=matmul,
    source="D0, Gradient with respect to W₂ … X",
    arguments={"x": "b s i", "w": "i o"},
    forward=OpCost(2 * b * s * i * o),
    backward=OpCost(4 * b * s * i * o),
    published_flops=4 * b * s * i * o,
    residuals=item * (b * s * i + i * o),
)
