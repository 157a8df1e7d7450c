"""Sigmoid: `y = σ(x) = 1 / (1 + e^(−x))`.

Derivation. By the quotient rule `dy/dx = e^(−x) / (1 + e^(−x))²`, one factor of which is `σ(x)` and the other `e^(−x) /
(1 + e^(−x)) = 1 − σ(x)`, so that `dy/dx = σ(x) (1 − σ(x))`, as in the documents. Where the sigmoid saturates at 1 the
digits of `1 − σ(x)` are lost, in float32 all of them from `x = 17` on. The same number is `σ(−x)`, which loses none:

    dx = dy σ(x) σ(−x)

Kept: x (y alone would have to give `1 − y`). Cost: XLA counts a σ as three and one transcendental; the documents print
no count. Source: D1, "Backpropagation Through Activations"; D3, "Backpropagation"; D4, "Gradient Calculations".
"""

import jax
import numpy as np
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, wide
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec, Special
from refgrad.symbols import b, i, item, s


@custom_vjp
@jax.named_scope("sigmoid")
def sigmoid(x: Array) -> Array:
    """Return σ(x) = 1 / (1 + e^(−x)), element by element.

    Args:
      x: Any shape.

    Returns:
      An array of x's shape and dtype.

    Raises:
      TypeError: `x` is not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> f"{ops.sigmoid(jnp.array(2.0)):.3f}"
      '0.881'
    """
    check_args("sigmoid", x=(x, "..."))
    return jax.lax.logistic(wide(x)).astype(x.dtype)


@jax.named_scope("sigmoid")
def _fwd(x: Array) -> tuple[Array, Array]:
    return sigmoid.fun(x), x


@jax.named_scope("sigmoid")
def _bwd(kept: Array, dy: Array) -> tuple[Array]:
    x = wide(kept)
    return (PrimalType.of(kept)(wide(dy) * (jax.lax.logistic(x) * jax.lax.logistic(-x))),)


sigmoid.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=sigmoid,
    source="D1, Backpropagation Through Activations",
    arguments={"x": "b s i"},
    forward=OpCost(3 * b * s * i, b * s * i),
    backward=OpCost(9 * b * s * i, 2 * b * s * i),
    adjustments={"σ(x) σ(−x) dy, not counted": 9 * b * s * i},
    residuals=item * b * s * i,
    special={"zero": Special(values={"x": np.zeros_like})},
)
