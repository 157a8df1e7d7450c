"""Leaky rectified linear unit: `y = x` above zero, `y = αx` below, the slope α a constant.

Derivation. `dy/dx` is 1 above zero and α below. At `x = 0` y has no derivative unless `α = 1`; here it is α, by
contract, as it is 0 for `relu`, which is `α = 0`:

    dx = α dy where x ≤ 0, else dy

Kept: the mask `x ≤ 0`, one byte an element (the sign of y would tell only while `α > 0`). Cost: a multiplication and a
selection an element; the document prints no count. Source: D3, "Activation functions".
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
    """x ≤ 0 element by element, and the type of x."""

    below: Array
    x: PrimalType


@custom_vjp(nondiff_argnums=(1,))
@jax.named_scope("leaky_relu")
def leaky_relu(x: Array, slope: float) -> Array:
    """Return x where x > 0 and slope · x elsewhere.

    Args:
      x: Any shape.
      slope: The slope for x ≤ 0.

    Returns:
      An array of x's shape and dtype.

    Raises:
      TypeError: `x` is not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> ops.leaky_relu(jnp.array([-1.0, 2.0]), 0.5).tolist()
      [-0.5, 2.0]
    """
    check_args("leaky_relu", x=(x, "..."))
    return jnp.where(x <= 0, slope * wide(x), wide(x)).astype(x.dtype)


@jax.named_scope("leaky_relu")
def _fwd(x: Array, slope: float) -> tuple[Array, Residuals]:
    return leaky_relu.fun(x, slope), Residuals(x <= 0, PrimalType.of(x))


@jax.named_scope("leaky_relu")
def _bwd(slope: float, kept: Residuals, dy: Array) -> tuple[Array]:
    dy = wide(dy)
    return (kept.x(jnp.where(kept.below, slope * dy, dy)),)


leaky_relu.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=leaky_relu,
    source="D3, Activation functions",
    arguments={"x": "b s i"},
    statics={"slope": 0.01},
    forward=OpCost(3 * b * s * i),
    backward=OpCost(2 * b * s * i),
    adjustments={"product and selection, not counted": 2 * b * s * i},
    residuals=b * s * i,
    special={"at the kink": Special(values={"x": np.round})},
)
