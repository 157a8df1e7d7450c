"""Residual connection: `y = x + f`, `f = F(x)` a module's output.

Derivation. `∂y/∂x = ∂y/∂f = 1` for the addition alone, so the upstream gradient goes to both:

    dx = dy        df = dy

Kept: nothing but types. Cost: none, as in the document. Where x also feeds F, its two gradients meet and are added:
that addition (the fan-in) belongs to the fan-out of x outside this rule, and is a term of its own in the model's tally.
Source: D2, "Residual Connections"; D3 on the add and copy gates.
"""

from typing import NamedTuple

import jax
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, wide
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec
from refgrad.symbols import b, h, s


class Residuals(NamedTuple):
    """The types of x and f."""

    x: PrimalType
    f: PrimalType


@custom_vjp
@jax.named_scope("residual")
def residual(x: Array, f: Array) -> Array:
    """Return x + f, a block's input and its output.

    Args:
      x, f: Arrays of one shape and dtype.

    Returns:
      The sum, of their shape.

    Raises:
      ValueError: The shapes do not agree.
      TypeError: A dtype is not floating, or the dtypes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> ops.residual(jnp.array([1.0, 2.0]), jnp.array([3.0, 5.0])).tolist()
      [4.0, 7.0]
    """
    check_args("residual", x=(x, "..."), f=(f, "..."))
    return (wide(x) + wide(f)).astype(x.dtype)


@jax.named_scope("residual")
def _fwd(x: Array, f: Array) -> tuple[Array, Residuals]:
    return residual.fun(x, f), Residuals(PrimalType.of(x), PrimalType.of(f))


@jax.named_scope("residual")
def _bwd(kept: Residuals, dy: Array) -> tuple[Array, Array]:
    return kept.x(dy), kept.f(dy)


residual.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=residual,
    source="D2, Residual Connections",
    arguments={"x": "b s h", "f": "b s h"},
    forward=OpCost(b * s * h),
    backward=OpCost(0),
    residuals=0,
)
