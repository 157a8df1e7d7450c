"""Linear layer on activations: `z = x w + bias`, the weight stored in × out.

Forward. Over the `b·s` rows r of x, `z_ro = Σ_i x_ri w_io + bias_o`.

Derivation. `x_ri` reaches the loss through every column of its own row, so `dx_ri = Σ_o dz_ro ∂z_ro/∂x_ri = Σ_o dz_ro
w_io`. `w_io` reaches it through column o of every row, so `dw_io = Σ_r x_ri dz_ro`: one `(i, bs) × (bs, o)` product,
not one per example followed by a sum. `bias_o` is broadcast to every row, so it gets the sum, `dbias_o = Σ_r dz_ro`:

    dx = dz wᵀ        dw = xᵀ dz        dbias = Σ_r dz

Kept: x and w. The bias is not needed, only its type. Cost: two products, `2·bs·i·o` each (n multiplications with `n −
1` additions counted as 2n), as in the document, which leaves out the bias: `(bs − 1)·o` additions more. Source: D2,
"Tensor Contractions" and its table (qkv_proj, attn_out, mlp_up, mlp_down).
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
    """x (..., i), w (i, o), and the bias's type."""

    x: Array
    w: Array
    bias: PrimalType


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
      >>> ops.linear(jnp.array([1.0, 2.0]), jnp.array([[3.0], [4.0]]), jnp.array([0.5])).tolist()
      [11.5]
    """
    check_args("linear", x=(x, "... i"), w=(w, "i o"), bias=(bias, "o"))
    z = product("...i,io->...o", x, w)
    return (z + jnp.broadcast_to(wide(bias), z.shape)).astype(x.dtype)


@jax.named_scope("linear")
def _fwd(x: Array, w: Array, bias: Array) -> tuple[Array, Residuals]:
    return linear.fun(x, w, bias), Residuals(x, w, PrimalType.of(bias))


@jax.named_scope("linear")
def _bwd(kept: Residuals, dz: Array) -> tuple[Array, Array, Array]:
    like_x, like_w = PrimalType.of(kept.x), PrimalType.of(kept.w)
    rows = range(dz.ndim - 1)
    dx = product("...o,io->...i", dz, kept.w, like_x.sharding)
    dw = product("...i,...o->io", kept.x, dz, like_w.sharding)
    dbias = jnp.sum(wide(dz), axis=tuple(rows))
    return like_x(dx), like_w(dw), kept.bias(dbias)


linear.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=linear,
    source="D2, Tensor Contractions",
    arguments={"x": "b s i", "w": "i o", "bias": "o"},
    forward=OpCost(2 * b * s * i * o + b * s * o),
    backward=OpCost(4 * b * s * i * o + (b * s - 1) * o),
    published_flops=4 * b * s * i * o,
    adjustments={"bias": (b * s - 1) * o},
    residuals=item * (b * s * i + i * o),
)
