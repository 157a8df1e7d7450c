"""Hyperbolic tangent: `y = tanh(x)`.

Derivation. With `y = sinh(x) / cosh(x)` the quotient rule gives `dy/dx = 1 − y²`. Near `|y| = 1` that cancels; with σ
the logistic function `y = 2σ(2x) − 1`, so that `1 − y² = (1 − y) (1 + y) = 4 σ(−2x) σ(2x)`, which does not:

    dx = 4 dy σ(2x) σ(−2x)

Kept: x (y alone would have to give `1 − y²`). Cost: XLA counts a σ as three and one transcendental; the document prints
no count. Source: D3, "Activation functions".
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, wide
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec, Special
from refgrad.symbols import b, i, item, s


@custom_vjp
@jax.named_scope("tanh")
def tanh(x: Array) -> Array:
    """Return tanh(x), element by element.

    Args:
      x: Any shape.

    Returns:
      An array of x's shape and dtype.

    Raises:
      TypeError: `x` is not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> f"{ops.tanh(jnp.array(2.0)):.3f}"
      '0.964'
    """
    check_args("tanh", x=(x, "..."))
    return jnp.tanh(wide(x)).astype(x.dtype)


def slope(x: Array) -> Array:
    """tanh′(x) = 4 σ(2x) σ(−2x), without cancellation, for x in a dtype of sums."""
    z = 2 * x
    return 4 * (jax.lax.logistic(z) * jax.lax.logistic(-z))


@jax.named_scope("tanh")
def _fwd(x: Array) -> tuple[Array, Array]:
    return tanh.fun(x), x


@jax.named_scope("tanh")
def _bwd(kept: Array, dy: Array) -> tuple[Array]:
    return (PrimalType.of(kept)(wide(dy) * slope(wide(kept))),)


tanh.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=tanh,
    source="D3, Activation functions",
    arguments={"x": "b s i"},
    forward=OpCost(0, b * s * i),
    backward=OpCost(11 * b * s * i, 2 * b * s * i),
    adjustments={"4 σ(2x) σ(−2x) dy, not counted": 11 * b * s * i},
    residuals=item * b * s * i,
    special={"zero": Special(values={"x": np.zeros_like})},
)
