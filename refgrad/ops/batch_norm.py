"""Batch normalisation by the batch's own statistics: `y = γ x̂ + β`, `x̂ = (x − μ) / √(σ² + ε)` for each column.

Forward. Over the n rows r (every axis but the last), `μ_j = (1/n) Σ_r x_rj`, `σ²_j = (1/n) Σ_r (x_rj − μ_j)²`, `rstd =
(σ² + ε)^(−1/2)`, `x̂ = (x − μ) rstd`. Layer normalisation takes the same two means along the other axis.

Derivation. With `v_r = dy_r γ` in a column, the derivation of `layer_norm` with n rows for h columns reads

    ∂x̂_r/∂x_q = rstd (δ(r, q) − 1/n − x̂_r x̂_q/n)        dx = rstd (v − mean_r(v) − x̂ mean_r(v x̂))

γ is one number a column, so that it leaves both means; what is left of them are the parameters' gradients over n, since
γ and β meet every row: `mean_r(dy x̂) = dγ/n` and `mean_r(dy) = dβ/n`. Each sum is taken once:

    dγ = Σ_r dy x̂        dβ = Σ_r dy        dx = (γ rstd) (dy − dβ/n − x̂ dγ/n)

`Σ_r x̂_r = 0`, but not as rounded, and least of all in a column far from 0: dγ is summed without the mean of dy, which
that would multiply. And where `x̂ dγ/n` cancels dy, x̂ enters twice with the errors of its own rounding and that of
rstd; with `c = x − μ` and `m = σ² + ε`, so that `x̂ = c rstd` and `rstd² = 1/m`, it does not:

    u = dy − dβ/n        p = Σ_r u c        dγ = rstd p        dx = (γ rstd) (u − c (p/n) / m)

Kept: c and m in the dtype of sums, and γ; β is not needed, only its type.
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
from refgrad.numerics import PrimalType, lift, wide
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec, Special
from refgrad.ops.layer_norm import affine
from refgrad.symbols import a, b, h, item, s


class Residuals(NamedTuple):
    """c = x − μ (..., h), m = σ² + ε (h,), γ (h,), and the types of x and β."""

    centred: Array
    m: Array
    gamma: Array
    x: PrimalType
    beta: PrimalType


def _rows(x: Array) -> tuple[int, ...]:
    """Every axis but the last."""
    return tuple(range(x.ndim - 1))


def _run(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Array, Array]:
    """y, and c = x − μ and m = σ² + ε in the dtype of sums."""
    x_wide = wide(x)
    centred = x_wide - lift(jnp.mean(x_wide, axis=_rows(x)), x.ndim)
    m = jnp.mean(centred * centred, axis=_rows(x)) + eps
    return affine(centred * lift(jax.lax.rsqrt(m), x.ndim), gamma, beta).astype(x.dtype), centred, m


@custom_vjp(nondiff_argnums=(3,))
@jax.named_scope("batch_norm")
def batch_norm(x: Array, gamma: Array, beta: Array, eps: float) -> Array:
    """Normalise each column over all rows: γ x̂ + β, by the batch's own mean and variance.

    Args:
      x: Rows (..., h), one at least.
      gamma, beta: γ and β (h,).
      eps: ε > 0, added to the variance.

    Returns:
      The normalised rows (..., h), in x's dtype.

    Raises:
      ValueError: The shapes do not agree, or `x` has no rows.
      TypeError: A dtype is not floating, or the dtypes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> print(ops.batch_norm(jnp.array([[0.0], [2.0]]), jnp.ones(1), jnp.zeros(1), 1e-5).round(3))
      [[-1.]
       [ 1.]]
    """
    _check_args(x, gamma, beta, eps)
    return _run(x, gamma, beta, eps)[0]


def _check_args(x: Array, gamma: Array, beta: Array, eps: float) -> None:
    check_args("batch_norm", gamma=(gamma, "h"), beta=(beta, "h"), x=(x, "... h"))
    if x.ndim < 2 or not x.size:
        raise ValueError(f"batch_norm: x has shape {x.shape}, but the statistics need a batch axis with a row at least")
    if not eps > 0:
        raise ValueError(f"batch_norm: eps is {eps}, but must be above 0, or a constant column divides by 0")


@jax.named_scope("batch_norm")
def _fwd(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Residuals]:
    _check_args(x, gamma, beta, eps)
    y, centred, m = _run(x, gamma, beta, eps)
    return y, Residuals(centred, m, gamma, PrimalType.of(x), PrimalType.of(beta))


@jax.named_scope("batch_norm")
def _bwd(eps: float, kept: Residuals, dy: Array) -> tuple[Array, Array, Array]:
    centred, m, gamma = kept.centred, kept.m, kept.gamma
    dy, n, rstd = wide(dy), dy.size // dy.shape[-1], jax.lax.rsqrt(m)
    dbeta = jnp.sum(dy, axis=_rows(dy))
    u = dy - lift(dbeta / n, dy.ndim)
    p = jnp.sum(u * centred, axis=_rows(dy))
    dx = lift(wide(gamma) * rstd, dy.ndim) * (u - centred * lift(p / n / m, dy.ndim))
    return kept.x(dx), PrimalType.of(gamma)(rstd * p), kept.beta(dbeta)


batch_norm.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=batch_norm,
    source="D1, Gradient Flow",
    arguments={"x": "b s h", "gamma": "h", "beta": "h"},
    statics={"eps": 1e-5},
    # two means (n each), centring, square, x̂, γ x̂, + β; + ε and rsqrt once a column
    forward=OpCost(7 * b * s * h + h, h),
    backward=OpCost(7 * b * s * h + 3 * h, h),
    adjustments={"the rule, not counted": 7 * b * s * h + 3 * h},
    residuals=a * (b * s * h + h) + item * h,
    special={
        "constant columns": Special(values={"x": lambda x: np.full_like(x, 3)}),
        "one row": Special(dims={"b": 1, "s": 1}),
        "columns far from zero": Special(values={"x": lambda x: x + 100}),
    },
)
