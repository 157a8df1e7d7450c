"""Rectified linear unit: `y = max(0, x)`.

Derivation. y is x above zero, where `dy/dx = 1`, and constant below, where `dy/dx = 0`. At `x = 0` y has no derivative;
here it is 0, by contract, and the forward selects by the same `x ≤ 0`, so that autodiff gives the same value there. The
Jacobian is diagonal: the upstream gradient is masked, never multiplied by a matrix. Since `y > 0` just where `x > 0`,

    dx = dy where y > 0, else 0

Kept: y, which the next layer keeps as its input anyway. A NaN stays one. Cost: a comparison and a selection an element,
forward and backward; the documents print no count.
Source: D1, "Backpropagation Through Activations"; D3, "Activation functions" and "Backpropagation with vectors and
matrices".
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec, Special
from refgrad.symbols import b, i, item, s


@custom_vjp
@jax.named_scope("relu")
def relu(x: Array) -> Array:
    """Return max(0, x), element by element. Its derivative at 0 is 0.

    Args:
      x: Any shape.

    Returns:
      An array of x's shape and dtype.

    Raises:
      TypeError: `x` is not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> ops.relu(jnp.array([-1.0, 2.0])).tolist()
      [0.0, 2.0]
    """
    check_args("relu", x=(x, "..."))
    return jnp.where(x <= 0, 0.0, x)


@jax.named_scope("relu")
def _fwd(x: Array) -> tuple[Array, Array]:
    y = relu.fun(x)
    return y, y


@jax.named_scope("relu")
def _bwd(y: Array, dy: Array) -> tuple[Array]:
    return (PrimalType.of(y)(jnp.where(y <= 0, 0.0, dy)),)


relu.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=relu,
    source="D1, Backpropagation Through Activations",
    arguments={"x": "b s i"},
    forward=OpCost(2 * b * s * i),
    backward=OpCost(2 * b * s * i),
    adjustments={"comparison and selection, not counted": 2 * b * s * i},
    residuals=item * b * s * i,
    special={"at the kink": Special(values={"x": np.round})},
)
