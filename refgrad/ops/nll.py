"""Negative log-likelihood: `L = −(1/bs) Σ_r p_r,t_r`, the mean of the targets' log-probabilities.

Derivation. L depends on one entry of each row, and linearly, so with δ the Kronecker delta

    dp_rv = −(dL/bs) δ(v, t_r)

Kept: the targets and the type of p. A target outside [0, V) gives a NaN loss. Cost: the document counts none, and
writing into zeros is none; the division of dL by bs is one, once.
Source: D2, "Negative Log Likelihood Loss".
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, wide
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec, Special
from refgrad.symbols import b, s


class Residuals(NamedTuple):
    """The targets (...) and the type of p (..., V)."""

    targets: Array
    p: PrimalType


def pick(p: Array, targets: Array) -> Array:
    """p (..., V) at the targets (...), NaN where a target is outside [0, V)."""
    if not targets.ndim:
        return p.at[targets].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
    return jax.vmap(pick)(p, targets)


def place(value: Array, targets: Array, zeros: Array) -> Array:
    """Zeros (..., V) with `value` (a scalar) at the targets (...); a target outside [0, V) is left out."""
    if not targets.ndim:
        return zeros.at[targets].set(value, mode="drop", wrap_negative_indices=False)
    return jax.vmap(place, in_axes=(None, 0, 0))(value, targets, zeros)


@custom_vjp
@jax.named_scope("nll")
def nll(p: Array, targets: Array) -> Array:
    """Return the mean of −p at the targets.

    Args:
      p: Log-probabilities (..., V).
      targets: Integer ids (...) in [0, V).

    Returns:
      The loss, a scalar in float32 at least; NaN for an id outside [0, V).

    Raises:
      ValueError: The shapes do not agree, or the batch is empty.
      TypeError: `p` is not floating, or `targets` not integer.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> ops.nll(jnp.array([[-0.5, -1.0]]), jnp.array([1])).tolist()
      1.0
    """
    check_args("nll", targets=(targets, "... < V"), p=(p, "... V"))
    if not targets.size:
        raise ValueError(f"nll: targets has shape {targets.shape}, but a mean needs one target at least")
    return -jnp.mean(pick(wide(p), targets))


@jax.named_scope("nll")
def _fwd(p: Array, targets: Array) -> tuple[Array, Residuals]:
    return nll.fun(p, targets), Residuals(targets, PrimalType.of(p))


@jax.named_scope("nll")
def _bwd(kept: Residuals, dL: Array) -> tuple[Array, None]:
    zeros = jnp.zeros(kept.p.shape, dL.dtype, out_sharding=kept.p.sharding)
    dp = place(dL / -math.prod(kept.targets.shape), kept.targets, zeros)
    return kept.p(dp), None


nll.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=nll,
    source="D2, Negative Log Likelihood Loss",
    arguments={"p": "b s V", "targets": "b s < V"},
    # the range check and selection of `pick`, four a target; bs − 1 additions, a division and a negation
    forward=OpCost(5 * b * s + 1),
    backward=OpCost(1),
    adjustments={"division of dL by bs": 1},
    residuals=4 * b * s,
    special={"one target throughout": Special(values={"targets": np.zeros_like})},
)
