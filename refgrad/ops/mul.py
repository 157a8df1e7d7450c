"""The multiplication gate: `z = x y`, element by element.

Derivation. `∂z/∂x = y` and `∂z/∂y = x`: the inputs swap places to multiply the upstream gradient,

    dx = dz y        dy = dz x

Kept: x and y. Cost: two products an element; the document prints no count. Source: D3, "Backpropagation in practice";
D1, "Backpropagation as Message Passing" (`x = y`: 2x in all).
"""

from typing import NamedTuple

import jax
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, wide
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec
from refgrad.symbols import b, i, item, s


class Residuals(NamedTuple):
    """x and y, of one shape."""

    x: Array
    y: Array


@custom_vjp
@jax.named_scope("mul")
def mul(x: Array, y: Array) -> Array:
    """Return x y, element by element.

    Args:
      x, y: Arrays of one shape and dtype.

    Returns:
      The product, of their shape.

    Raises:
      ValueError: The shapes do not agree.
      TypeError: A dtype is not floating, or the dtypes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> ops.mul(jnp.array([1.0, 2.0]), jnp.array([3.0, 5.0])).tolist()
      [3.0, 10.0]
    """
    check_args("mul", x=(x, "..."), y=(y, "..."))
    return (wide(x) * wide(y)).astype(x.dtype)


@jax.named_scope("mul")
def _fwd(x: Array, y: Array) -> tuple[Array, Residuals]:
    return mul.fun(x, y), Residuals(x, y)


@jax.named_scope("mul")
def _bwd(kept: Residuals, dz: Array) -> tuple[Array, Array]:
    dz = wide(dz)
    return PrimalType.of(kept.x)(dz * wide(kept.y)), PrimalType.of(kept.y)(dz * wide(kept.x))


mul.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=mul,
    source="D3, Backpropagation in practice",
    arguments={"x": "b s i", "y": "b s i"},
    forward=OpCost(b * s * i),
    backward=OpCost(2 * b * s * i),
    adjustments={"dz y and dz x, not counted": 2 * b * s * i},
    residuals=2 * item * b * s * i,
)
