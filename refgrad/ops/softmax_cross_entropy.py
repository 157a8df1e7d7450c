"""Cross-entropy with its two rules fused: `L = (1/bs) Σ_r (log Σ_v e^(x_rv) − x_r,t_r)`.

With `m_r` the row's maximum, a shift that cancels, and `S_r = Σ_v e^(x_rv − m_r)`, it is `L = (1/bs) Σ_r (log S_r −
(x_r,t_r − m_r))`.

Derivation. `∂(log S_r)/∂x_rv` is the softmax `p_rv = e^(x_rv − m_r) / S_r`, and the target's logit enters with −1, so
that `dx_rv = (dL/bs) (p_rv − δ(v, t_r))`. With `g = dL/bs` and the division by `S_r` drawn out of the row:

    dx_rv = e^(x_rv − m_r) (g / S_r) − g δ(v, t_r)

This is the chain of `cross_entropy`, `dp = −(dL/bs) δ` and `dx = dp − e^p Σ_v dp`, with `Σ_v dp = −dL/bs` put in. Kept:
the logits, m and S of each row, and the targets; no second array of V columns. m and S stay apart, since their sum `m +
log S` would round away the last digits of log S where logits are large. Cost: against the composition, the sum over V
is gone; each row has a division and an addition at its target. Source: D2, "Log-softmax Gradients", "Negative Log
Likelihood Loss", their fusion.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, wide
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec
from refgrad.ops.cross_entropy import SPEC as COMPOSITION
from refgrad.ops.nll import pick
from refgrad.symbols import V, a, b, item, s


class Residuals(NamedTuple):
    """The logits x (..., V); each row's maximum and sum of exponentials (...); the targets (...)."""

    x: Array
    top: Array
    total: Array
    targets: Array


def _sums(x: Array) -> tuple[Array, Array]:
    """m and S of each row of x (..., V); the maximum is a constant to the gradient."""
    top = jax.lax.stop_gradient(jnp.max(x, axis=-1))
    return top, jnp.sum(jnp.exp(x - top[..., None]), axis=-1)


def _loss(x: Array, top: Array, total: Array, targets: Array) -> Array:
    """The mean over the rows of log S − (x_t − m)."""
    return jnp.mean(jnp.log(total) - (pick(x, targets) - top))


def _add_at(x: Array, targets: Array, value: Array) -> Array:
    """x (..., V) with the scalar `value` added at each target (...)."""
    if not targets.ndim:
        return x.at[targets].add(value, mode="drop", wrap_negative_indices=False)
    return jax.vmap(_add_at, in_axes=(0, 0, None))(x, targets, value)


def _check_args(x: Array, targets: Array) -> None:
    check_args("softmax_cross_entropy", targets=(targets, "... < V"), x=(x, "... V"))
    if not targets.size:
        raise ValueError(f"softmax_cross_entropy: targets has shape {targets.shape}, but a mean needs one at least")


@custom_vjp
@jax.named_scope("softmax_cross_entropy")
def softmax_cross_entropy(x: Array, targets: Array) -> Array:
    """Return the mean of −log softmax(x) at the targets, in one operation.

    Args:
      x: Logits (..., V).
      targets: Integer ids (...) in [0, V).

    Returns:
      The loss, a scalar in float32 at least; NaN for an id outside [0, V).

    Raises:
      ValueError: The shapes do not agree, or the batch is empty.
      TypeError: `x` is not floating, or `targets` not integer.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> f"{ops.softmax_cross_entropy(jnp.zeros((1, 2)), jnp.array([0])):.3f}"
      '0.693'
    """
    _check_args(x, targets)
    return _loss(wide(x), *_sums(wide(x)), targets)


@jax.named_scope("softmax_cross_entropy")
def _fwd(x: Array, targets: Array) -> tuple[Array, Residuals]:
    _check_args(x, targets)
    top, total = _sums(wide(x))
    return _loss(wide(x), top, total, targets), Residuals(x, top, total, targets)


@jax.named_scope("softmax_cross_entropy")
def _bwd(kept: Residuals, dL: Array) -> tuple[Array, None]:
    g = dL / kept.targets.size
    dx = jnp.exp(wide(kept.x) - kept.top[..., None]) * (g / kept.total)[..., None]
    return PrimalType.of(kept.x)(_add_at(dx, kept.targets, -g)), None


softmax_cross_entropy.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=softmax_cross_entropy,
    source="D2, Negative Log Likelihood Loss",
    arguments=COMPOSITION.arguments,
    # maximum and sum with n − 1 each, the shift; per row the pick (4), its two subtractions; the mean; exp and log
    forward=OpCost(3 * b * s * V + 5 * b * s, b * s * V + b * s),
    backward=OpCost(2 * b * s * V + 2 * b * s + 2, b * s * V),
    published_flops=COMPOSITION.published_flops,
    adjustments={
        "transcendental split": -b * s * V,
        "softmax and NLL fused": -b * s * V + 2 * b * s,
        "dL / bs and its negation": 2,
    },
    residuals=item * b * s * V + 2 * a * b * s + 4 * b * s,
    special=COMPOSITION.special,
)
