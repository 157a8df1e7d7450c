"""Rotary positions: in each head, columns j and `j + d/2` turned together by the angle `t θ_j`, `θ_j = base^(−2j/d)`.

Forward. For position t, with `c = cos(t θ_j)` and `z = sin(t θ_j)`, and (x₁, x₂) the two halves of a head's columns,

    y₁ = c x₁ − z x₂        y₂ = c x₂ + z x₁

Derivation. Each pair is multiplied by a rotation `R(t θ_j)`, which depends on no argument but the position. Its
gradient is multiplied by the transpose, `Rᵀ = R⁻¹`, the rotation by the negative angle:

    dx₁ = c dy₁ + z dy₂        dx₂ = c dy₂ − z dy₁

that is, the same function with z negated. Kept: nothing but types: no angle, and not x. Cost: three operations an
element; the angles are `s·d/2`, a product each, and their cosines and sines. Source: Su et al., RoFormer (2021); the
two halves, in the place of neighbours, are GPT-NeoX's and LLaMA's layout.
"""

import jax
import jax.numpy as jnp
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, lift, wide
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec, Special
from refgrad.symbols import b, h, s


def _turn(x: Array, base: float, sign: float) -> Array:
    """x (..., s, d) with each pair of columns turned by `sign` times its angle, in the dtype of sums."""
    x = wide(x)
    s, half = x.shape[-2], x.shape[-1] // 2
    theta = jnp.asarray([base ** (-j / half) for j in range(half)], x.dtype)
    angle = jax.lax.broadcasted_iota(x.dtype, (s, half), 0) * lift(theta, 2)
    cos, sin = lift(jnp.cos(angle), x.ndim), lift(jnp.sin(angle), x.ndim)
    first, second = x[..., :half], x[..., half:]
    if sign > 0:
        return jnp.concatenate([cos * first - sin * second, cos * second + sin * first], axis=-1)
    return jnp.concatenate([cos * first + sin * second, cos * second - sin * first], axis=-1)


def _check_args(x: Array, base: float) -> None:
    check_args("fused.rotary", x=(x, "... s d"))
    if x.shape[-1] % 2 or not x.shape[-1]:
        raise ValueError(
            f"fused.rotary: x has {x.shape[-1]} columns a head, but they are turned in pairs: an even number"
        )
    if not base > 0:
        raise ValueError(f"fused.rotary: base is {base}, but must be above 0")


@custom_vjp(nondiff_argnums=(1,))
@jax.named_scope("rotary")
def rotary(x: Array, base: float = 10000.0) -> Array:
    """Turn each pair of columns by an angle that grows with the position.

    Args:
      x: Queries or keys (..., s, d), d even; row t stands at position t.
      base: Pair i turns by t · base^(−2i/d); above 0.

    Returns:
      An array of x's shape and dtype.

    Raises:
      ValueError: `x` has less than two axes or d is odd, or base ≤ 0.
      TypeError: `x` is not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> f"{ops.fused.rotary(jnp.array([[1.0, 0.0], [1.0, 0.0]]))[1, 0]:.3f}"
      '0.540'
    """
    _check_args(x, base)
    return _turn(x, base, 1.0).astype(x.dtype)


@jax.named_scope("rotary")
def _fwd(x: Array, base: float) -> tuple[Array, PrimalType]:
    return rotary.fun(x, base), PrimalType.of(x)


@jax.named_scope("rotary")
def _bwd(base: float, kept: PrimalType, dy: Array) -> tuple[Array]:
    return (kept(_turn(dy, base, -1.0)),)


rotary.defvjp(_fwd, _bwd)

COST = OpCost(3 * b * s * h + s * h / 2, s * h)  # two products and a sum an element; s·h/2 angles

SPEC = OpSpec(
    op=rotary,
    source="Su et al. (2021)",
    arguments={"x": "b s h"},
    statics={"base": 10000.0},
    forward=COST,
    backward=COST,
    published_flops=3 * b * s * h,
    adjustments={"angles recomputed": s * h / 2},
    residuals=0,
    special={"one position": Special(dims={"s": 1}), "one pair": Special(dims={"h": 2})},
)
