"""The copy gate, a fan-out: `z₁ = z₂ = x`.

Derivation. x reaches the loss along two paths, each with the local derivative 1, and the chain rule sums over paths:
the gate adds what comes back,

    dx = dz₁ + dz₂

Kept: nothing but a type. Cost: an addition an element, the fan-in of every residual stream and tied weight; the
document prints no count.
Source: D3, "Backpropagation in practice".
"""

import jax
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, wide
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec
from refgrad.symbols import b, i, s


@custom_vjp
@jax.named_scope("copy")
def copy(x: Array) -> tuple[Array, Array]:
    """Return x twice. The rule adds the two cotangents.

    Args:
      x: Any shape.

    Returns:
      The pair (x, x).

    Raises:
      TypeError: `x` is not floating.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> jax.grad(lambda x: sum(ops.copy(x)))(jnp.array(1.0)).tolist()
      2.0
    """
    check_args("copy", x=(x, "..."))
    return x, x


@jax.named_scope("copy")
def _fwd(x: Array) -> tuple[tuple[Array, Array], PrimalType]:
    return copy.fun(x), PrimalType.of(x)


@jax.named_scope("copy")
def _bwd(kept: PrimalType, dz: tuple[Array, Array]) -> tuple[Array]:
    first, second = dz
    return (kept(wide(first) + wide(second)),)


copy.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=copy,
    source="D3, Backpropagation in practice",
    arguments={"x": "b s i"},
    forward=OpCost(0),
    backward=OpCost(b * s * i),
    adjustments={"fan-in": b * s * i},
    residuals=0,
)
