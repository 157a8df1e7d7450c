"""GELU by the error function: `y = x Φ(x)`, `Φ(x) = ½ (1 + erf(x/√2))` the normal distribution.

Derivation. Φ' is the normal density `φ(x) = e^(−x²/2) / √(2π)`, so by the product rule `dy/dx = Φ(x) + x φ(x)`. In `½
(1 + erf(x/√2))` the digits cancel below zero; the complementary error function has the same value without that, `Φ(x) =
½ erfc(−x/√2)`, forward too:

    dx = dy (½ erfc(−x/√2) + x e^(−½ x²) / √(2π))

Kept: x. Cost: XLA spells an erfc out as 62 operations and one transcendental in float32 (90 in float64); the document
prints no count. `gelu` is the approximation by tanh that GPT-2 uses.
Source: D3, "Activation functions".
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, wide
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec, Special
from refgrad.symbols import b, i, item, s


def _normal(x: Array) -> Array:
    """Φ(x)."""
    return 0.5 * jax.lax.erfc(-math.sqrt(0.5) * x)


@custom_vjp
@jax.named_scope("gelu_erf")
def gelu_erf(x: Array) -> Array:
    """Return x Φ(x), GELU in its exact form, element by element.

    Args:
      x: Any shape.

    Returns:
      An array of x's shape and dtype.

    Raises:
      TypeError: `x` is not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> f"{ops.gelu_erf(jnp.array(-1.0)):.3f}"
      '-0.159'
    """
    check_args("gelu_erf", x=(x, "..."))
    y = wide(x)
    return (y * _normal(y)).astype(x.dtype)


@jax.named_scope("gelu_erf")
def _fwd(x: Array) -> tuple[Array, Array]:
    return gelu_erf.fun(x), x


@jax.named_scope("gelu_erf")
def _bwd(kept: Array, dy: Array) -> tuple[Array]:
    x = wide(kept)
    density = jnp.exp(-0.5 * (x * x)) * (1 / math.sqrt(2 * math.pi))
    return (PrimalType.of(kept)(wide(dy) * (_normal(x) + x * density)),)


gelu_erf.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=gelu_erf,
    source="D3, Activation functions",
    arguments={"x": "b s i"},
    forward=OpCost(65 * b * s * i, b * s * i),
    backward=OpCost(70 * b * s * i, 2 * b * s * i),
    adjustments={"erfc spelt out": 62 * b * s * i, "(Φ(x) + x φ(x)) dy, not counted": 8 * b * s * i},
    residuals=item * b * s * i,
    special={
        "large inputs": Special(values={"x": lambda x: np.where(x > 0, 30, -30)}),
        "zero": Special(values={"x": np.zeros_like}),
    },
)
