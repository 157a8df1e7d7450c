"""The add gate: `z = x + y`.

Derivation. `∂z/∂x = ∂z/∂y = 1`: the gate hands the upstream gradient to both of its inputs,

    dx = dz        dy = dz

Kept: nothing but types. Cost: none. (`residual` is this gate where y is a module's output.)
Source: D3, "Backpropagation in practice".
"""

from typing import NamedTuple

import jax
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, wide
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec
from refgrad.symbols import b, i, s


class Residuals(NamedTuple):
    """The types of x and y."""

    x: PrimalType
    y: PrimalType


@custom_vjp
@jax.named_scope("add")
def add(x: Array, y: Array) -> Array:
    """Return x + y.

    Args:
      x, y: Arrays of one shape and dtype.

    Returns:
      The sum, of their shape.

    Raises:
      ValueError: The shapes do not agree.
      TypeError: A dtype is not floating, or the dtypes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> ops.add(jnp.array([1.0, 2.0]), jnp.array([3.0, 5.0])).tolist()
      [4.0, 7.0]
    """
    check_args("add", x=(x, "..."), y=(y, "..."))
    return (wide(x) + wide(y)).astype(x.dtype)


@jax.named_scope("add")
def _fwd(x: Array, y: Array) -> tuple[Array, Residuals]:
    return add.fun(x, y), Residuals(PrimalType.of(x), PrimalType.of(y))


@jax.named_scope("add")
def _bwd(kept: Residuals, dz: Array) -> tuple[Array, Array]:
    return kept.x(dz), kept.y(dz)


add.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=add,
    source="D3, Backpropagation in practice",
    arguments={"x": "b s i", "y": "b s i"},
    forward=OpCost(b * s * i),
    backward=OpCost(0),
    residuals=0,
)
