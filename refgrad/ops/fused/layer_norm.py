"""Layer normalisation that keeps its input: `y = γ x̂ + β`, `x̂ = (x − μ) rstd`, `rstd = (σ² + ε)^(−1/2)`.

Derivation. The gradients are those of `layer_norm`, which holds x̂ in memory from forward to backward. But x is alive
there anyway (it is the residual stream), and x̂ is a subtraction and a product of x with two numbers a row:

    x̂ = (x − μ) rstd        v = dy γ
    dx = rstd (v − mean(v) − x̂ mean(v x̂))        dγ = Σ_r dy x̂        dβ = Σ_r dy

Where `x̂ mean(v x̂)` cancels v, roundings decide how many digits are left. With `c = x − μ` and `m = σ² + ε`, `x̂ = c
rstd` and `rstd² = 1/m`, that of rstd enters once only. And `Σ_j c_j = 0`, but not as rounded: the mean is taken last,
so that a row of dx sums to 0.

    p = v − c mean(v c) / m        dx = rstd (p − mean(p))

Kept: x, μ and m, and γ: in a model no array of its own but two columns. In bfloat16 x has half of x̂'s bytes.
Cost: 11bsh, as `layer_norm`, and 4bsh to make c and x̂ again once dy exists (see `depend_on`); rstd and a quotient a
row.
Source: D2, "Layer Normalization"; keeping the statistics alone is common practice (llm.c, doc/layernorm).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, depend_on, lift, rows, wide
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec
from refgrad.ops.layer_norm import SPEC as PLAIN
from refgrad.ops.layer_norm import affine
from refgrad.symbols import a, b, h, item, s


class Residuals(NamedTuple):
    """x (..., h), μ and m = σ² + ε (..., 1), γ (h,), and the type of β."""

    x: Array
    mean: Array
    m: Array
    gamma: Array
    beta: PrimalType


def statistics(x: Array, eps: float) -> tuple[Array, Array, Array]:
    """x − μ (..., h), and μ and m = σ² + ε of each row (..., 1), in the dtype of sums."""
    x = wide(x)
    mean = jnp.mean(x, axis=-1, keepdims=True)
    centred = x - mean
    return centred, mean, jnp.mean(centred * centred, axis=-1, keepdims=True) + eps


def normalise(x: Array, mean: Array, m: Array) -> Array:
    """x̂ (..., h), in the dtype of sums."""
    return (wide(x) - mean) * jax.lax.rsqrt(m)


def _check_args(x: Array, gamma: Array, beta: Array, eps: float) -> None:
    check_args("fused.layer_norm", x=(x, "... h"), gamma=(gamma, "h"), beta=(beta, "h"))
    if not eps > 0:
        raise ValueError(f"fused.layer_norm: eps is {eps}, but must be above 0, or a constant row divides by 0")


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
      >>> print(ops.fused.layer_norm(jnp.array([[1.0, 3.0]]), jnp.ones(2), jnp.zeros(2), 1e-5).round(3))
      [[-1.  1.]]
    """
    return _fwd(x, gamma, beta, eps)[0]


@jax.named_scope("layer_norm")
def _fwd(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Residuals]:
    _check_args(x, gamma, beta, eps)
    centred, mean, m = statistics(x, eps)
    y = affine(centred * jax.lax.rsqrt(m), gamma, beta).astype(x.dtype)
    return y, Residuals(x, mean, m, gamma, PrimalType.of(beta))


@jax.named_scope("layer_norm")
def _bwd(eps: float, kept: Residuals, dy: Array) -> tuple[Array, Array, Array]:
    centred, dy = wide(depend_on(kept.x, dy)) - kept.mean, wide(dy)
    rstd = jax.lax.rsqrt(kept.m)
    v = dy * lift(wide(kept.gamma), dy.ndim)
    p = v - centred * (jnp.mean(v * centred, axis=-1, keepdims=True) / kept.m)
    dx = rstd * (p - jnp.mean(p, axis=-1, keepdims=True))
    dgamma, dbeta = jnp.sum(rows(dy * (centred * rstd)), axis=0), jnp.sum(rows(dy), axis=0)
    return PrimalType.of(kept.x)(dx), PrimalType.of(kept.gamma)(dgamma), kept.beta(dbeta)


layer_norm.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=layer_norm,
    source=PLAIN.source,
    arguments=PLAIN.arguments,
    statics=PLAIN.statics,
    forward=PLAIN.forward,
    backward=OpCost(15 * b * s * h - 2 * h + b * s, b * s),
    published_flops=PLAIN.published_flops,
    adjustments={"n−1 additions": -2 * h, "x̂ recomputed": 4 * b * s * h, "a quotient by m in each row": b * s},
    residuals=item * (b * s * h + h) + a * 2 * b * s,
    special=PLAIN.special,
)
