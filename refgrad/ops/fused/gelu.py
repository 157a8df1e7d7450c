"""GELU by tanh with one transcendental a pass: `y = ½ x (1 + tanh(z/2))`, `z = 2√(2/π) (x + c x³)`, `c = 0.044715`.

Derivation. `gelu` ends with `dx = dy (σ(z) + x σ(z) σ(−z) dz/dx)`, which never cancels but asks for two logistic
functions. With `e = e^(−|z|)` and `r = 1 / (1 + e)` both come out of one exponential, since `σ(|z|) = r` and `σ(−|z|) =
e r`:

    σ(z) = r where z ≥ 0, e r elsewhere        σ(z) σ(−z) = e r²
    dx = dy (σ(z) + x e r² dz/dx)        z = x (k + k c x²),  dz/dx = k + 3k c x²,  k = 2√(2/π)

`e ≤ 1`, so that nothing overflows, and `σ(z)` is smooth where the two branches meet (both are ½ at `z = 0`). The
forward keeps the tanh of the formula: were it the same exponential, a compiler would find it again in the backward pass
and keep it alive in between, as large as x. Where both y and `dy/dx` are asked for, `y = x σ(z)`.

Kept: x. Cost: against `gelu`, one transcendental fewer; what makes e and r of z (a comparison and two selections
among them) costs what two logistic functions did.
Source: D2, "GELU".
"""

import jax
import jax.numpy as jnp
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, wide
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec
from refgrad.ops.gelu import SPEC as PLAIN
from refgrad.ops.gelu import A, C
from refgrad.ops.gelu import gelu as plain
from refgrad.symbols import b, i, s


def value_and_slope(x: Array) -> tuple[Array, Array]:
    """GELU(x) and its derivative, element by element, in the dtype of sums."""
    x = wide(x)
    x2 = x * x
    z = x * (2 * A + (2 * A * C) * x2)
    dz_dx = 2 * A + (6 * A * C) * x2
    above = z >= 0
    e = jnp.exp(jnp.where(above, -z, z))  # −|z|, differentiable at 0 too
    r = 1 / (1 + e)
    er = e * r
    logistic = jnp.where(above, r, er)
    return x * logistic, logistic + x * (er * r) * dz_dx


@custom_vjp
@jax.named_scope("gelu")
def gelu(x: Array) -> Array:
    """Return GELU(x) in its tanh form, element by element, with a rule that keeps x alone.

    Args:
      x: Any shape.

    Returns:
      An array of x's shape and dtype.

    Raises:
      TypeError: `x` is not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> f"{ops.fused.gelu(jnp.array(-1.0)):.3f}"
      '-0.159'
    """
    check_args("fused.gelu", x=(x, "..."))
    return plain.fun(x)


@jax.named_scope("gelu")
def _fwd(x: Array) -> tuple[Array, Array]:
    return gelu.fun(x), x


@jax.named_scope("gelu")
def _bwd(kept: Array, dy: Array) -> tuple[Array]:
    _, slope = value_and_slope(kept)
    return (PrimalType.of(kept)(wide(dy) * slope),)


gelu.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=gelu,
    source=PLAIN.source,
    arguments=PLAIN.arguments,
    forward=PLAIN.forward,
    backward=OpCost(18 * b * s * i, b * s * i),
    published_flops=PLAIN.published_flops,
    adjustments={"transcendental split": -b * s * i},
    residuals=PLAIN.residuals,
    special=PLAIN.special,
)
