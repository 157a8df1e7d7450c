"""Root-mean-square normalisation over the last axis: `y = γ x̂`, `x̂ = x rrms`, `rrms = (mean(x²) + ε)^(−1/2)`.

Derivation. That of `layer_norm` without the mean: with `v = dy γ` and `∂rrms/∂x_i = −rrms³ x_i / h`,

    ∂x̂_j/∂x_i = rrms δ(i, j) − x_j rrms³ x_i / h = rrms (δ(i, j) − x̂_j x̂_i / h)

so that the sum over j has one mean in the place of two. γ is shared by every row r:

    x̂ = x rrms        v = dy γ        dx = rrms (v − x̂ mean(v x̂))        dγ = Σ_r dy x̂

Where one entry of a row outweighs the others, `x̂ mean(v x̂)` cancels what is left of v. rrms is rounded, and would
enter there twice; with `m = mean(x²) + ε`, whose inverse root it is, it does not:

    dx = rrms (v − x mean(v x) / m)

Kept: x and m, and γ: x̂ is one product away, and made again once dy exists (see `depend_on`).
Cost: γ's product; v x and its mean, x times the quotient, the difference, rrms; dy x̂ and its sum over the rows; x̂
again, 3bsh; rrms and a quotient a row.
Source: Zhang and Sennrich, Root Mean Square Layer Normalization (2019); LLaMA's norm; D2's "Layer Normalization" by
leaving out the mean and β.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, depend_on, lift, rows, wide
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec, Special
from refgrad.symbols import a, b, h, item, s


class Residuals(NamedTuple):
    """x (..., h), m = mean(x²) + ε (..., 1) and γ (h,)."""

    x: Array
    m: Array
    gamma: Array


@custom_vjp(nondiff_argnums=(2,))
@jax.named_scope("rms_norm")
def rms_norm(x: Array, gamma: Array, eps: float) -> Array:
    """Divide each row by the root of its mean square, and scale it: γ x / √(mean(x²) + ε).

    Args:
      x: Rows (..., h).
      gamma: γ (h,).
      eps: ε > 0, added to the mean square.

    Returns:
      The normalised rows (..., h), in x's dtype.

    Raises:
      ValueError: The shapes do not agree, or ε ≤ 0.
      TypeError: A dtype is not floating, or the dtypes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> print(ops.fused.rms_norm(jnp.array([[3.0, 3.0]]), jnp.ones(2), 1e-5).round(3))
      [[1. 1.]]
    """
    return _fwd(x, gamma, eps)[0]


@jax.named_scope("rms_norm")
def _fwd(x: Array, gamma: Array, eps: float) -> tuple[Array, Residuals]:
    check_args("fused.rms_norm", x=(x, "... h"), gamma=(gamma, "h"))
    if not eps > 0:
        raise ValueError(f"fused.rms_norm: eps is {eps}, but must be above 0, or a row of zeros divides by 0")
    x_wide = wide(x)
    m = jnp.mean(x_wide * x_wide, axis=-1, keepdims=True) + eps
    y = lift(wide(gamma), x.ndim) * (x_wide * jax.lax.rsqrt(m))
    return y.astype(x.dtype), Residuals(x, m, gamma)


@jax.named_scope("rms_norm")
def _bwd(eps: float, kept: Residuals, dy: Array) -> tuple[Array, Array]:
    x, dy, rrms = wide(depend_on(kept.x, dy)), wide(dy), jax.lax.rsqrt(kept.m)
    v = dy * lift(wide(kept.gamma), dy.ndim)
    dx = rrms * (v - x * (jnp.mean(v * x, axis=-1, keepdims=True) / kept.m))
    return PrimalType.of(kept.x)(dx), PrimalType.of(kept.gamma)(jnp.sum(rows(dy * (x * rrms)), axis=0))


rms_norm.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=rms_norm,
    source="Zhang and Sennrich (2019)",
    arguments={"x": "b s h", "gamma": "h"},
    statics={"eps": 1e-5},
    # the square and its mean (n), x̂, γ x̂; + ε and rsqrt once a row
    forward=OpCost(4 * b * s * h + b * s, b * s),
    backward=OpCost(11 * b * s * h - h + b * s, b * s),
    published_flops=8 * b * s * h,
    adjustments={"n−1 additions": -h, "x̂ recomputed": 3 * b * s * h, "a quotient by m in each row": b * s},
    residuals=item * (b * s * h + h) + a * b * s,
    special={
        "rows of zeros": Special(values={"x": np.zeros_like}),
        "rows of one element": Special(dims={"h": 1}),
        "rows far from zero": Special(values={"x": lambda x: x + 100}),
    },
)
