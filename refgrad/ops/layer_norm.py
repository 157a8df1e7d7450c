"""Layer normalisation over the last axis: `y = γ x̂ + β`, `x̂ = (x − μ) / √(σ² + ε)`.

Forward. For each row, `μ = (1/h) Σ_j x_j`, `σ² = (1/h) Σ_j (x_j − μ)²`, `rstd = (σ² + ε)^(−1/2)`, `x̂ = (x − μ) rstd`.

Derivation. `dx̂_j = dy_j γ_j =: v_j`. With `∂μ/∂x_i = 1/h` and `∂σ²/∂x_i = 2(x_i − μ)/h` (the paths through μ in σ²
cancel, since `Σ_j (x_j − μ) = 0`), the quotient rule gives

    ∂x̂_i/∂x_i = rstd (1 − 1/h − x̂_i²/h)        ∂x̂_j/∂x_i = rstd (−1/h − x̂_j x̂_i/h)   for j ≠ i

and the sum over all j of `v_j ∂x̂_j/∂x_i` collects into two means. γ and β are shared by every row r and get sums:

    dx = rstd (v − mean(v) − x̂ mean(v x̂))        dγ = Σ_r dy x̂        dβ = Σ_r dy

`Σ_j x̂_j = 0`, so that `mean(v x̂)` is `mean(u x̂)` with `u = v − mean(v)`. Rounded, x̂ has a sum, which the mean of v
would multiply, and where one entry of a row outweighs the others, `x̂ mean(v x̂)` cancels what is left of v: u loses
less.

    u = v − mean(v)        dx = rstd (u − x̂ mean(u x̂))

Kept: x̂ and rstd in the dtype of sums, and γ; β is not needed, only its type. Cost: `8bsh + 2bsh + bsh = 11bsh`, as in
the document, which takes x̂ for free (it is, since it is kept); its sums over the `b·s` rows count n additions for n
terms. Each mean's `n − 1` additions and its division make n. Source: D2, "Layer Normalization".
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
from refgrad.symbols import a, b, h, item, s


class Residuals(NamedTuple):
    """x̂ (..., h), rstd (..., 1), γ (h,), and the types of x and β."""

    x_hat: Array
    rstd: Array
    gamma: Array
    x: PrimalType
    beta: PrimalType


def _normalise(x: Array, eps: float) -> tuple[Array, Array]:
    """x̂ and rstd, in the dtype of sums."""
    x = wide(x)
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    rstd = jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + eps)
    return centred * rstd, rstd


def affine(x_hat: Array, gamma: Array, beta: Array) -> Array:
    """γ x̂ + β."""
    return lift(wide(gamma), x_hat.ndim) * x_hat + lift(wide(beta), x_hat.ndim)


@custom_vjp(nondiff_argnums=(3,))
@jax.named_scope("layer_norm")
def layer_norm(x: Array, gamma: Array, beta: Array, eps: float) -> Array:
    """Normalise each row, then scale and shift it: γ (x − μ) / √(σ² + ε) + β.

    Args:
      x: Rows (..., h).
      gamma, beta: γ and β (h,).
      eps: ε > 0, added to the variance.

    Returns:
      The normalised rows (..., h), in x's dtype.

    Raises:
      ValueError: The shapes do not agree, or ε ≤ 0.
      TypeError: A dtype is not floating, or the dtypes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> print(ops.layer_norm(jnp.array([[1.0, 3.0]]), jnp.ones(2), jnp.zeros(2), 1e-5).round(3))
      [[-1.  1.]]
    """
    _check_args(x, gamma, beta, eps)
    return affine(_normalise(x, eps)[0], gamma, beta).astype(x.dtype)


def _check_args(x: Array, gamma: Array, beta: Array, eps: float) -> None:
    check_args("layer_norm", x=(x, "... h"), gamma=(gamma, "h"), beta=(beta, "h"))
    if not eps > 0:
        raise ValueError(f"layer_norm: eps is {eps}, but must be above 0, or a constant row divides by 0")


@jax.named_scope("layer_norm")
def _fwd(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Residuals]:
    _check_args(x, gamma, beta, eps)
    x_hat, rstd = _normalise(x, eps)
    y = affine(x_hat, gamma, beta).astype(x.dtype)
    return y, Residuals(x_hat, rstd, gamma, PrimalType.of(x), PrimalType.of(beta))


@jax.named_scope("layer_norm")
def _bwd(eps: float, kept: Residuals, dy: Array) -> tuple[Array, Array, Array]:
    x_hat, rstd, gamma = kept.x_hat, kept.rstd, kept.gamma
    dy, rows = wide(dy), tuple(range(dy.ndim - 1))
    v = dy * lift(wide(gamma), dy.ndim)
    u = v - jnp.mean(v, axis=-1, keepdims=True)
    dx = rstd * (u - x_hat * jnp.mean(u * x_hat, axis=-1, keepdims=True))
    return kept.x(dx), PrimalType.of(gamma)(jnp.sum(dy * x_hat, axis=rows)), kept.beta(jnp.sum(dy, axis=rows))


layer_norm.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=layer_norm,
    source="D2, Layer Normalization",
    arguments={"x": "b s h", "gamma": "h", "beta": "h"},
    statics={"eps": 1e-5},
    # two means (n each), centring, square, x̂, γ x̂, + β; + ε and rsqrt once a row
    forward=OpCost(7 * b * s * h + b * s, b * s),
    backward=OpCost(11 * b * s * h - 2 * h),
    published_flops=11 * b * s * h,
    adjustments={"n−1 additions": -2 * h},
    residuals=a * (b * s * h + b * s) + item * h,
    special={
        "constant rows": Special(values={"x": lambda x: np.full_like(x, 3)}),
        "rows of one element": Special(dims={"h": 1}),
        "rows far from zero": Special(values={"x": lambda x: x + 100}),
    },
)
