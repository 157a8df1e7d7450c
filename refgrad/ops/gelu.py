"""GELU by tanh: `y = ½ x (1 + t)`, `t = tanh(u)`, `u = √(2/π) (x + c x³)`, `c = 0.044715`.

Derivation. By the product rule `dy/dx = ½ (1 + t) + ½ x dt/dx`, with `dt/dx = (1 − t²) du/dx` and `du/dx = √(2/π) (1 +
3c x²)`. So stands the rule in the document. Near `|t| = 1`, however, `1 + t` and `1 − t²` cancel, and `x du/dx` makes
the lost digits larger (in float32 by more than the allowance, near `x = −3`). With σ the logistic function and `z = 2u`
both are had without cancelling, `½ (1 + t) = σ(z)` and `1 − t² = 4 σ(z) σ(−z)`, so that with `dz/dx = 2 du/dx`

    dx = dy (σ(z) + x σ(z) σ(−z) dz/dx),  z = x (2√(2/π) + 2√(2/π) c x²),  dz/dx = 2√(2/π) + 6√(2/π) c x²

Kept: x. Cost: the document counts 19 operations an element, its tanh among them. XLA counts a σ as three and one
transcendental; `σ(z) σ(−z)` in place of `1 − t²` and constants folded together come to one operation more. Source: D2,
"GELU".
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

A = math.sqrt(2 / math.pi)
C = 0.044715


@custom_vjp
@jax.named_scope("gelu")
def gelu(x: Array) -> Array:
    """Return GELU(x) in its tanh form, element by element.

    Args:
      x: Any shape.

    Returns:
      An array of x's shape and dtype.

    Raises:
      TypeError: `x` is not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> f"{ops.gelu(jnp.array(-1.0)):.3f}"
      '-0.159'
    """
    check_args("gelu", x=(x, "..."))
    y = wide(x)
    return (0.5 * y * (1 + jnp.tanh(A * y * (1 + C * (y * y))))).astype(x.dtype)


@jax.named_scope("gelu")
def _fwd(x: Array) -> tuple[Array, Array]:
    return gelu.fun(x), x


@jax.named_scope("gelu")
def _bwd(kept: Array, dy: Array) -> tuple[Array]:
    x = wide(kept)
    x2 = x * x
    z = x * (2 * A + (2 * A * C) * x2)
    dz_dx = 2 * A + (6 * A * C) * x2
    p = jax.lax.logistic(z)
    dx = wide(dy) * (p + x * (p * jax.lax.logistic(-z)) * dz_dx)
    return (PrimalType.of(kept)(dx),)


gelu.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=gelu,
    source="D2, GELU",
    arguments={"x": "b s i"},
    forward=OpCost(8 * b * s * i, b * s * i),
    backward=OpCost(18 * b * s * i, 2 * b * s * i),
    published_flops=19 * b * s * i,
    adjustments={"transcendental split": -2 * b * s * i, "σ(z) σ(−z) for 1 − t²": b * s * i},
    residuals=item * b * s * i,
    special={
        "large inputs": Special(values={"x": lambda x: np.where(x > 0, 30, -30)}),
        "zero": Special(values={"x": np.zeros_like}),
    },
)
