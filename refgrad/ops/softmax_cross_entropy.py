"""Cross-entropy with its two rules fused: L = (1/bs) Σ_r (log Σ_v e^(x_rv) − x_r,t_r).

Derivation. ∂(log Σ_v e^(x_rv))/∂x_rv is the softmax p_rv = e^(x_rv − lse_r), and the target's logit enters with −1:

    dx_rv = (dL/bs) (p_rv − δ(v, t_r))

This is the chain of `cross_entropy`, dp = −(dL/bs) δ and dx = dp − e^p Σ_v dp, with Σ_v dp = −dL/bs put in.
Kept: the logits, the log-sum-exp of each row and the targets; no second array of V columns, and no sum over V.
Cost: against the composition, the sum over V is gone, and p − δ is one addition into p at each target.
Source: D2, "Log-softmax Gradients", "Negative Log Likelihood Loss", their fusion.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from refgrad.ops._agree import agree
from refgrad.ops._numerics import Like, wide
from refgrad.ops._row import Cost, Row
from refgrad.ops.cross_entropy import ROW as COMPOSITION
from refgrad.ops.nll import pick
from refgrad.symbols import V, a, b, s, w


class Residuals(NamedTuple):
    """The logits x (..., V), the log-sum-exp of each row (...), the targets (...)."""

    x: Array
    lse: Array
    targets: Array


def _log_sum_exp(x: Array) -> Array:
    """log Σ_v e^(x_v) of each row (..., V) → (...), shifted by the row's maximum, a constant to the gradient."""
    top = jax.lax.stop_gradient(jnp.max(x, axis=-1))
    return top + jnp.log(jnp.sum(jnp.exp(x - top[..., None]), axis=-1))


def _loss(x: Array, lse: Array, targets: Array) -> Array:
    return jnp.mean(lse - pick(x, targets))


def _minus_one(p: Array, targets: Array) -> Array:
    """p (..., V) less 1 at each target."""
    if not targets.ndim:
        return p.at[targets].add(-1, mode="drop", wrap_negative_indices=False)
    return jax.vmap(_minus_one)(p, targets)


def _agree(x: Array, targets: Array) -> None:
    agree("softmax_cross_entropy", targets=(targets, "... < V"), x=(x, "... V"))
    if not targets.size:
        raise ValueError(f"softmax_cross_entropy: targets has shape {targets.shape}, but a mean needs one at least")


@jax.custom_vjp
@jax.named_scope("softmax_cross_entropy")
def softmax_cross_entropy(x: Array, targets: Array) -> Array:
    """Logits x (..., V), ids (...) in [0, V) → the mean loss, a scalar in float32 at least; NaN for another id.

    Raises ValueError or TypeError where they do not agree, and ValueError for an empty batch.
    """
    _agree(x, targets)
    return _loss(wide(x), _log_sum_exp(wide(x)), targets)


@jax.named_scope("softmax_cross_entropy")
def _fwd(x: Array, targets: Array) -> tuple[Array, Residuals]:
    _agree(x, targets)
    lse = _log_sum_exp(wide(x))
    return _loss(wide(x), lse, targets), Residuals(x, lse, targets)


@jax.named_scope("softmax_cross_entropy")
def _bwd(kept: Residuals, dL: Array) -> tuple[Array, None]:
    p = jnp.exp(wide(kept.x) - kept.lse[..., None])
    dx = _minus_one(p, kept.targets) * (dL / kept.targets.size)
    return Like.of(kept.x)(dx), None


softmax_cross_entropy.defvjp(_fwd, _bwd)

ROW = Row(
    op=softmax_cross_entropy,
    source="D2, Negative Log Likelihood Loss",
    arguments=COMPOSITION.arguments,
    # maximum and sum with n − 1 each, the shift; lse + max, less the target's logit as picked, and the mean
    forward=Cost(3 * b * s * V + 5 * b * s, b * s * V + b * s),
    backward=Cost(2 * b * s * V + b * s + 1, b * s * V),
    document=COMPOSITION.document,
    causes={
        "transcendental split": -b * s * V,
        "softmax and NLL fused": -b * s * V + b * s,
        "division of dL by bs": 1,
    },
    residuals=w * b * s * V + a * b * s + 4 * b * s,
    special=COMPOSITION.special,
)
