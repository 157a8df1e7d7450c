"""The max gate: `z = max(x, y)`, element by element.

Derivation. z is the larger input, with derivative 1 by it and 0 by the other: the gate routes the upstream gradient to
the input that won. Where `x = y`, z has no derivative; here each input gets half, by contract, as in JAX, so that
`max(x, x)` has the gradient of x:

    dx = dz where x > y, ½ dz where x = y, else 0        dy = dz − dx

Kept: two masks, `x > y` and `x = y`, one byte an element each. Cost: `½ dz`, two selections and a subtraction an
element; the document prints no count. Source: D3, "Backpropagation in practice".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, wide
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec, Special
from refgrad.symbols import b, i, s


class Residuals(NamedTuple):
    """x > y and x = y element by element, and the types of x and y."""

    wins: Array
    ties: Array
    x: PrimalType
    y: PrimalType


@custom_vjp
@jax.named_scope("maximum")
def maximum(x: Array, y: Array) -> Array:
    """Return the larger of x and y, element by element. A tie sends half of the cotangent to each.

    Args:
      x, y: Arrays of one shape and dtype.

    Returns:
      An array of their shape.

    Raises:
      ValueError: The shapes do not agree.
      TypeError: A dtype is not floating, or the dtypes differ.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> jax.grad(ops.maximum)(jnp.array(1.0), jnp.array(1.0)).tolist()
      0.5
    """
    check_args("maximum", x=(x, "..."), y=(y, "..."))
    return jnp.maximum(x, y)


@jax.named_scope("maximum")
def _fwd(x: Array, y: Array) -> tuple[Array, Residuals]:
    return maximum.fun(x, y), Residuals(x > y, x == y, PrimalType.of(x), PrimalType.of(y))


@jax.named_scope("maximum")
def _bwd(kept: Residuals, dz: Array) -> tuple[Array, Array]:
    dz = wide(dz)
    dx = jnp.where(kept.wins, dz, jnp.where(kept.ties, 0.5 * dz, 0.0))
    return kept.x(dx), kept.y(dz - dx)


maximum.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=maximum,
    source="D3, Backpropagation in practice",
    arguments={"x": "b s i", "y": "b s i"},
    forward=OpCost(b * s * i),
    backward=OpCost(4 * b * s * i),
    adjustments={"½ dz, selections, dz − dx, not counted": 4 * b * s * i},
    residuals=2 * b * s * i,
    special={
        "ties": Special(values={"x": np.sign, "y": np.sign}),
        "equal inputs": Special(values={"x": np.ones_like, "y": np.ones_like}),
    },
)
