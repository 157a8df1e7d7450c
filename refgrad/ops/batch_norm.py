"""Batch normalisation by the batch's own statistics: y = γ x̂ + β, x̂ = (x − μ) / √(σ² + ε) for each column.

Forward. Over the n rows r (every axis but the last), μ_j = (1/n) Σ_r x_rj, σ²_j = (1/n) Σ_r (x_rj − μ_j)²,
rstd = (σ² + ε)^(−1/2), x̂ = (x − μ) rstd. Layer normalisation takes the same two means along the other axis.

Derivation. With v_r = dy_r γ in a column, the derivation of `layer_norm` with n rows for h columns reads

    ∂x̂_r/∂x_q = rstd (δ(r, q) − 1/n − x̂_r x̂_q/n)        dx = rstd (v − mean_r(v) − x̂ mean_r(v x̂))

γ is one number a column, so that it leaves both means; what is left of them are the parameters' gradients over n,
since γ and β meet every row: mean_r(dy x̂) = dγ/n and mean_r(dy) = dβ/n. Each sum is taken once:

    dγ = Σ_r dy x̂        dβ = Σ_r dy        dx = (γ rstd) (dy − dβ/n − x̂ dγ/n)

Kept: x̂ and rstd in the dtype of sums, and γ; β is not needed, only its type.
Cost: seven operations an element either way; the document prints no count. Layer normalisation needs eleven backward,
because there γ stays inside the means.
Source: D1, "Gradient Flow" (its remedies).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.ops._agree import agree
from refgrad.ops._numerics import Like, lift, wide
from refgrad.ops._row import Cost, Row, Special
from refgrad.ops.layer_norm import affine
from refgrad.symbols import a, b, h, s, w


class Residuals(NamedTuple):
    """x̂ (..., h), rstd (h,), γ (h,), and the types of x and β."""

    x_hat: Array
    rstd: Array
    gamma: Array
    x: Like
    beta: Like


def _rows(x: Array) -> tuple[int, ...]:
    """Every axis but the last."""
    return tuple(range(x.ndim - 1))


def _normalise(x: Array, eps: float) -> tuple[Array, Array]:
    """x̂ and rstd, in the dtype of sums."""
    x = wide(x)
    centred = x - lift(jnp.mean(x, axis=_rows(x)), x.ndim)
    rstd = jax.lax.rsqrt(jnp.mean(centred * centred, axis=_rows(x)) + eps)
    return centred * lift(rstd, x.ndim), rstd


@custom_vjp(nondiff_argnums=(3,))
@jax.named_scope("batch_norm")
def batch_norm(x: Array, gamma: Array, beta: Array, eps: float) -> Array:
    """x (..., h) with a row at least, γ and β (h,), ε > 0 → (..., h).

    Raises ValueError or TypeError where they do not agree, and ValueError where there is no row.
    """
    _agree(x, gamma, beta, eps)
    return affine(_normalise(x, eps)[0], gamma, beta).astype(x.dtype)


def _agree(x: Array, gamma: Array, beta: Array, eps: float) -> None:
    agree("batch_norm", gamma=(gamma, "h"), beta=(beta, "h"), x=(x, "... h"))
    if x.ndim < 2 or not x.size:
        raise ValueError(f"batch_norm: x has shape {x.shape}, but the statistics need a batch axis with a row at least")
    if not eps > 0:
        raise ValueError(f"batch_norm: eps is {eps}, but must be above 0, or a constant column divides by 0")


@jax.named_scope("batch_norm")
def _fwd(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Residuals]:
    _agree(x, gamma, beta, eps)
    x_hat, rstd = _normalise(x, eps)
    return affine(x_hat, gamma, beta).astype(x.dtype), Residuals(x_hat, rstd, gamma, Like.of(x), Like.of(beta))


@jax.named_scope("batch_norm")
def _bwd(eps: float, kept: Residuals, dy: Array) -> tuple[Array, Array, Array]:
    x_hat, rstd, gamma = kept.x_hat, kept.rstd, kept.gamma
    dy, n = wide(dy), dy.size // dy.shape[-1]
    dgamma, dbeta = jnp.sum(dy * x_hat, axis=_rows(dy)), jnp.sum(dy, axis=_rows(dy))
    mean_v, mean_vx = lift(dbeta / n, dy.ndim), lift(dgamma / n, dy.ndim)
    dx = lift(wide(gamma) * rstd, dy.ndim) * (dy - mean_v - x_hat * mean_vx)
    return kept.x(dx), Like.of(gamma)(dgamma), kept.beta(dbeta)


batch_norm.defvjp(_fwd, _bwd)

ROW = Row(
    op=batch_norm,
    source="D1, Gradient Flow",
    arguments={"x": "b s h", "gamma": "h", "beta": "h"},
    statics={"eps": 1e-5},
    # two means (n each), centring, square, x̂, γ x̂, + β; + ε and rsqrt once a column
    forward=Cost(7 * b * s * h + h, h),
    backward=Cost(7 * b * s * h + h),
    document=0,
    causes={"the rule, not counted": 7 * b * s * h + h},
    residuals=a * (b * s * h + h) + w * h,
    special={
        "constant columns": Special(values={"x": lambda x: np.full_like(x, 3)}),
        "one row": Special(dims={"b": 1, "s": 1}),
        "columns far from zero": Special(values={"x": lambda x: x + 100}),
    },
)
