"""SwiGLU's element-wise part: `y = silu(g) u`, `silu(g) = g σ(g)`, of a gate g and a value u.

Derivation. `dsilu/dg = σ(g) + g σ(g) σ(−g)`, by `σ′ = σ(g) σ(−g)`. The product rule gives

    du = dy silu(g)        dg = dy u (σ(g) + g σ(g) σ(−g))

As in `gelu`, both logistic functions come out of one exponential that never overflows: `e = e^(−|g|)`, `r = 1 / (1 +
e)`, `σ(g) = r` where `g ≥ 0` and `e r` elsewhere, `σ(g) σ(−g) = e r²`.

Kept: g and u alone; σ, silu and its slope are made again once dy exists (see `depend_on`). Autodiff keeps three arrays
of their size. Cost: 8 for e, r, e r and σ, 4 for the slope, 1 for silu, 3 for the two products, and 2 to wait for dy.
Source: Shazeer, GLU Variants Improve Transformer (2020); LLaMA's feed-forward layer.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, depend_on, wide
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec, Special
from refgrad.symbols import b, i, item, s


class Residuals(NamedTuple):
    """g and u, of one shape."""

    g: Array
    u: Array


@custom_vjp
@jax.named_scope("swiglu")
def swiglu(g: Array, u: Array) -> Array:
    """Return silu(g) u, element by element.

    Args:
      g, u: Gate and values, of one shape and dtype.

    Returns:
      An array of their shape.

    Raises:
      ValueError: The shapes do not agree.
      TypeError: A dtype is not floating, or the dtypes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> f"{ops.fused.swiglu(jnp.array(2.0), jnp.array(5.0)):.3f}"
      '8.808'
    """
    check_args("fused.swiglu", g=(g, "..."), u=(u, "..."))
    return (wide(g) * jax.lax.logistic(wide(g)) * wide(u)).astype(g.dtype)


@jax.named_scope("swiglu")
def _fwd(g: Array, u: Array) -> tuple[Array, Residuals]:
    return swiglu.fun(g, u), Residuals(g, u)


@jax.named_scope("swiglu")
def _bwd(kept: Residuals, dy: Array) -> tuple[Array, Array]:
    g, u, dy_wide = wide(depend_on(kept.g, dy)), wide(kept.u), wide(dy)
    above = g >= 0
    e = jnp.exp(jnp.where(above, -g, g))  # −|g|, differentiable at 0 too
    r = 1 / (1 + e)
    er = e * r
    logistic = jnp.where(above, r, er)
    dg = dy_wide * u * (logistic + g * (er * r))
    return PrimalType.of(kept.g)(dg), PrimalType.of(kept.u)(dy_wide * (g * logistic))


swiglu.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=swiglu,
    source="Shazeer (2020)",
    arguments={"g": "b s i", "u": "b s i"},
    # the logistic function's three, two products
    forward=OpCost(5 * b * s * i, b * s * i),
    backward=OpCost(16 * b * s * i, b * s * i),
    published_flops=14 * b * s * i,
    adjustments={"g awaits its cotangent": 2 * b * s * i},
    residuals=2 * item * b * s * i,
    special={
        "large gates": Special(values={"g": lambda g: np.where(g > 0, 60, -60)}),
        "zero": Special(values={"g": np.zeros_like}),
    },
)
