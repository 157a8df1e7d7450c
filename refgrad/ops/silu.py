"""Sigmoid linear unit (swish): `y = x σ(x)`.

Derivation. By the product rule `dy/dx = σ(x) + x σ'(x)`, and `σ'(x) = σ(x) (1 − σ(x)) = σ(x) σ(−x)`, whose second form
does not cancel where `σ(x)` nears 1 (see `sigmoid`). With `σ(x)` drawn out

    dx = dy σ(x) (1 + x σ(−x))

Kept: x. Cost: XLA counts a σ as three and one transcendental; the document prints no count.
Source: D3, "Activation functions".
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
@jax.named_scope("silu")
def silu(x: Array) -> Array:
    """Return x σ(x), element by element.

    Args:
      x: Any shape.

    Returns:
      An array of x's shape and dtype.

    Raises:
      TypeError: `x` is not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> f"{ops.silu(jnp.array(2.0)):.3f}"
      '1.762'
    """
    check_args("silu", x=(x, "..."))
    y = wide(x)
    return (y * jax.lax.logistic(y)).astype(x.dtype)


@jax.named_scope("silu")
def _fwd(x: Array) -> tuple[Array, Array]:
    return silu.fun(x), x


@jax.named_scope("silu")
def _bwd(kept: Array, dy: Array) -> tuple[Array]:
    x = wide(kept)
    return (PrimalType.of(kept)(wide(dy) * (jax.lax.logistic(x) * (1 + x * jax.lax.logistic(-x)))),)


silu.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=silu,
    source="D3, Activation functions",
    arguments={"x": "b s i"},
    forward=OpCost(4 * b * s * i, b * s * i),
    backward=OpCost(11 * b * s * i, 2 * b * s * i),
    adjustments={"σ(x) (1 + x σ(−x)) dy, not counted": 11 * b * s * i},
    residuals=item * b * s * i,
    special={
        "large inputs": Special(values={"x": lambda x: np.where(x > 0, 30, -30)}),
        "zero": Special(values={"x": np.zeros_like}),
    },
)
