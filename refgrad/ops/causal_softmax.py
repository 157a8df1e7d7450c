"""Causal softmax: position i attends to positions `j ≤ i` alone.

Forward. z = softmax(x where `j ≤ i`, −∞ elsewhere): the exponential of −∞ is exactly 0, so `z_ij = 0` for `j > i`, and
the diagonal keeps every row's maximum finite.

Derivation. The mask is a constant, and where it closes z is 0; the softmax's own rule multiplies by z:

    dx_ij = z_ij (dz_ij − Σ_k dz_ik z_ik)        which is exactly 0 for j > i

so the backward pass needs no mask. A value under the mask, −∞ and NaN included, does not reach z or dx.

Kept: z, as in `softmax`. Cost: the softmax's; the document knows no mask, and the closed half is computed and counted.
Source: GPT-2 itself; D2, "Softmax" (its figures for the attention matrix `b × n_h × s × s`).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import lift
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec, Special
from refgrad.ops.softmax import SPEC as SOFTMAX
from refgrad.ops.softmax import Residuals, softmax
from refgrad.symbols import b, n_h, s


def _masked(x: Array) -> Array:
    """x (..., s, s) with −∞ above the diagonal."""
    rows, columns = (jax.lax.broadcasted_iota(jnp.int32, x.shape[-2:], axis) for axis in (0, 1))
    open_ = lift(columns <= rows, x.ndim)
    return jnp.where(open_, x, -jnp.inf)


@custom_vjp
@jax.named_scope("causal_softmax")
def causal_softmax(x: Array) -> Array:
    """Return the softmax of each query's scores over the keys up to its own position.

    Args:
      x: Scores (..., s, s), queries × keys.

    Returns:
      Probabilities (..., s, s), 0 above the diagonal.

    Raises:
      ValueError: The last two axes differ.
      TypeError: `x` is not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> ops.causal_softmax(jnp.zeros((2, 2))).tolist()
      [[1.0, 0.0], [0.5, 0.5]]
    """
    check_args("causal_softmax", x=(x, "... s s"))
    return softmax.fun(_masked(x))


@jax.named_scope("causal_softmax")
def _fwd(x: Array) -> tuple[Array, Residuals]:
    check_args("causal_softmax", x=(x, "... s s"))
    return softmax.fwd(_masked(x))


@jax.named_scope("causal_softmax")
def _bwd(kept: Residuals, dz: Array) -> tuple[Array]:
    return softmax.bwd(kept, dz)


causal_softmax.defvjp(_fwd, _bwd)


def _under_mask(value: float):
    return lambda x: np.where(np.triu(np.ones(x.shape, bool), 1), value, x)


SPEC = OpSpec(
    op=causal_softmax,
    source="D2, Softmax; the mask is GPT-2's",
    arguments={"x": "b n_h s s"},
    # the softmax, one comparison of the s × s mask and one selection an element
    forward=OpCost(SOFTMAX.forward.flops + b * n_h * s**2 + s**2, SOFTMAX.forward.transcendentals),
    backward=SOFTMAX.backward,
    published_flops=SOFTMAX.published_flops,
    adjustments=SOFTMAX.adjustments,
    residuals=SOFTMAX.residuals,
    special={
        **SOFTMAX.special,
        "−∞ under the mask": Special(values={"x": _under_mask(-np.inf)}),
        "+1e4 under the mask": Special(values={"x": _under_mask(1e4)}),
    },
)
