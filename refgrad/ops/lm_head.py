"""Language-model head: `logits = x Eᵀ`, the weight stored `V × h`, as the tied token embedding is.

Forward. `z_rv = Σ_h x_rh E_vh` over the `b·s` rows r.

Derivation. That of `linear` with `w = Eᵀ` and no bias: `dx_rh = Σ_v dz_rv E_vh`, and `E_vh` reaches the loss through
column v of every row, `dE_vh = Σ_r dz_rv x_rh`:

    dx = dz E        dE = dzᵀ x

Kept: x and E. Cost: two products, `2·bs·h·V` each, as in the document. Source: D2, "Tensor Contractions", lm_head; the
same form as D1's `Y = X Wᵀ` with weights stored out × in.
"""

from typing import NamedTuple

import jax
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, product
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec
from refgrad.symbols import V, b, h, item, s


class Residuals(NamedTuple):
    """x (..., h) and E (V, h)."""

    x: Array
    E: Array


@custom_vjp
@jax.named_scope("lm_head")
def lm_head(x: Array, E: Array) -> Array:
    """Return x Eᵀ: a logit for each row of the embedding.

    Args:
      x: (..., h).
      E: The token embedding (V, h).

    Returns:
      Logits (..., V).

    Raises:
      ValueError: The shapes do not agree.
      TypeError: A dtype is not floating, or the dtypes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> ops.lm_head(jnp.array([1.0, 2.0]), jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])).tolist()
      [1.0, 2.0, 3.0]
    """
    check_args("lm_head", x=(x, "... h"), E=(E, "V h"))
    return product("...h,vh->...v", x, E).astype(x.dtype)


@jax.named_scope("lm_head")
def _fwd(x: Array, E: Array) -> tuple[Array, Residuals]:
    return lm_head.fun(x, E), Residuals(x, E)


@jax.named_scope("lm_head")
def _bwd(kept: Residuals, dz: Array) -> tuple[Array, Array]:
    like_x, like_E = PrimalType.of(kept.x), PrimalType.of(kept.E)
    dx = product("...v,vh->...h", dz, kept.E, like_x.sharding)
    dE = product("...v,...h->vh", dz, kept.x, like_E.sharding)
    return like_x(dx), like_E(dE)


lm_head.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=lm_head,
    source="D2, Tensor Contractions",
    arguments={"x": "b s h", "E": "V h"},
    forward=OpCost(2 * b * s * h * V),
    backward=OpCost(4 * b * s * h * V),
    published_flops=4 * b * s * h * V,
    residuals=item * (b * s * h + V * h),
)
