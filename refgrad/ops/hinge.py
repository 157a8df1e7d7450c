"""Multiclass hinge loss: `L = (1/n) Σ_r Σ_{v ≠ t_r} max(0, x_rv − x_r,t_r + Δ)`, over n rows of scores x, the margin Δ.

Derivation. Let `m_rv` be 1 where `x_rv − x_r,t_r + Δ > 0` and `v ≠ t_r`, else 0: the terms that are not flat. `x_rv`
enters its own term with +1 where v is not the target, and the target's score every term of its row with −1:

    dx_rv = (dL/n) m_rv  for v ≠ t_r        dx_r,t_r = −(dL/n) Σ_v m_rv

A score that stands at the margin exactly has no derivative; here it is 0 by contract, as in `relu`, and the forward
selects likewise. Kept: m, one byte a score, and the targets. A target outside [0, V) gives a NaN loss. Cost: per score,
m as a number, the sum over V (`n − 1` additions for n terms), the comparison with the target, a selection and a
product; per row a negation; `dL/n` once. The document prints no count. Source: D3, "How to compute gradients?", whose
expanded form has `+W_y x` where `−W_y x` is meant.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, wide
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec, Special
from refgrad.ops.nll import pick
from refgrad.symbols import V, b, s


class Residuals(NamedTuple):
    """m as a mask (..., V), the targets (...), and the type of x (..., V)."""

    active: Array
    targets: Array
    x: PrimalType


def _is_target(targets: Array, classes: int) -> Array:
    """Targets (...) → True at each row's target (..., V)."""
    return jax.nn.one_hot(targets, classes, dtype=jnp.bool_)


def _excess(x: Array, targets: Array, margin: float) -> Array:
    """x_rv − x_r,t_r + Δ (..., V), and 0 at the target."""
    above = wide(x) - pick(wide(x), targets)[..., None] + margin
    return jnp.where(_is_target(targets, x.shape[-1]), 0.0, above)


def _check_args(x: Array, targets: Array) -> None:
    check_args("hinge", targets=(targets, "... < V"), x=(x, "... V"))
    if not targets.size:
        raise ValueError(f"hinge: targets has shape {targets.shape}, but a mean needs one target at least")


def _loss(excess: Array) -> Array:
    """The mean over rows of the sum of max(0, excess)."""
    return jnp.mean(jnp.sum(jnp.where(excess <= 0, 0.0, excess), axis=-1))


@custom_vjp(nondiff_argnums=(2,))
@jax.named_scope("hinge")
def hinge(x: Array, targets: Array, margin: float) -> Array:
    """Return the mean over rows of Σ_{j≠t} max(0, x_j − x_t + margin), t the row's target.

    Args:
      x: Scores (..., V).
      targets: Integer ids (...) in [0, V).
      margin: By how much the target's score has to lead.

    Returns:
      The loss, a scalar in float32 at least.

    Raises:
      ValueError: The shapes do not agree, or the batch is empty.
      TypeError: `x` is not floating, or `targets` not integer.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> ops.hinge(jnp.array([[1.0, 0.5]]), jnp.array([0]), 1.0).tolist()
      0.5
    """
    _check_args(x, targets)
    return _loss(_excess(x, targets, margin))


@jax.named_scope("hinge")
def _fwd(x: Array, targets: Array, margin: float) -> tuple[Array, Residuals]:
    _check_args(x, targets)
    excess = _excess(x, targets, margin)
    return _loss(excess), Residuals(excess > 0, targets, PrimalType.of(x))


@jax.named_scope("hinge")
def _bwd(margin: float, kept: Residuals, dL: Array) -> tuple[Array, None]:
    m = kept.active.astype(dL.dtype)
    dx = jnp.where(_is_target(kept.targets, m.shape[-1]), -jnp.sum(m, axis=-1, keepdims=True), m)
    return kept.x(dL / kept.targets.size * dx), None


hinge.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=hinge,
    source="D3, How to compute gradients?",
    arguments={"x": "b s V", "targets": "b s < V"},
    statics={"margin": 1.0},
    # the target's score (4 a row); its subtraction, + Δ, is-target, selection; max(0, ·) in two; the sum and the mean
    forward=OpCost(7 * b * s * V + 4 * b * s),
    backward=OpCost(5 * b * s * V + 1),
    adjustments={"dL/n at what is not flat, not counted": 5 * b * s * V + 1},
    residuals=b * s * V + 4 * b * s,
    special={
        "at the margin": Special(values={"x": np.round}),
        "one target throughout": Special(values={"targets": np.zeros_like}),
    },
)
