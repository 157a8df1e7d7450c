"""Binary cross-entropy on logits: the loss of `binary_cross_entropy` at `p = σ(z)`, in one step, stable for every z.

Forward. `−log σ(z) = log(1 + e^(−z))` where `y = 1`, and `−log(1 − σ(z)) = log(1 + e^z)` where `y = 0`. With the
label's sign `c = 1 − 2y` both are `softplus(c z) = log(1 + e^(c z))`, so that `L = (1/N) Σ_i softplus(c_i z_i)`.

Derivation. softplus' = σ, so a term's derivative is `c σ(c z)`: `σ(z) − 1` where `y = 1`, `σ(z)` where `y = 0`. That is
the chain of the parts, `p (1 − p)` times `1/q`, with the two factors that vanish and explode together cancelled on
paper. In `σ(z) − 1` the digits would cancel where z is large; in `−σ(−z)` they do not:

    dz = (dL/N) c σ(c z)

At `c z → −∞` the gradient goes to 0, at `c z → ∞` to `±dL/N`; nothing overflows. A label other than 0 and 1 gives NaN.
Kept: z and the labels. Cost: `dL/N` once; c costs two comparisons and two selections, then two products, σ (three and a
transcendental) and a product; the document prints no count. Source: D4, "Gradient Calculations"; D3, "Backpropagation"
(one gate in place of its parts).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, wide, wide_dtype
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec, Special
from refgrad.symbols import b, i, item, s


class Residuals(NamedTuple):
    """The logits z and the labels y, of one shape."""

    z: Array
    y: Array


def _sign(y: Array, dtype: jnp.dtype) -> Array:
    """c = 1 − 2y for labels 0 and 1, NaN for another."""
    return jnp.where(y == 1, jnp.full((), -1, dtype), jnp.where(y == 0, jnp.full((), 1, dtype), jnp.nan))


def _softplus(u: Array) -> Array:
    """log(1 + e^u) without an exponential above 1, in branches that are each smooth up to u = 0."""
    above = u > 0
    return jnp.where(above, u, 0.0) + jnp.log1p(jnp.exp(jnp.where(above, -u, u)))


@custom_vjp
@jax.named_scope("binary_cross_entropy_with_logits")
def binary_cross_entropy_with_logits(z: Array, y: Array) -> Array:
    """Return the mean of log(1 + e^z) − y z, the cross-entropy of σ(z).

    Args:
      z: Logits of any shape.
      y: Integer labels, 0 or 1, of z's shape.

    Returns:
      The loss, a scalar in float32 at least.

    Raises:
      ValueError: The shapes do not agree, or the batch is empty.
      TypeError: `z` is not floating, or `y` not integer.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> f"{ops.binary_cross_entropy_with_logits(jnp.array([0.0, 0.0]), jnp.array([1, 0])):.3f}"
      '0.693'
    """
    check_args("binary_cross_entropy_with_logits", z=(z, "..."), y=(y, "... < 2"))
    if not z.size:
        raise ValueError(f"binary_cross_entropy_with_logits: z has shape {z.shape}, but a mean needs one entry")
    z = wide(z)
    return jnp.mean(_softplus(_sign(y, z.dtype) * z))


@jax.named_scope("binary_cross_entropy_with_logits")
def _fwd(z: Array, y: Array) -> tuple[Array, Residuals]:
    return binary_cross_entropy_with_logits.fun(z, y), Residuals(z, y)


@jax.named_scope("binary_cross_entropy_with_logits")
def _bwd(kept: Residuals, dL: Array) -> tuple[Array, None]:
    c = _sign(kept.y, wide_dtype(kept.z.dtype))
    dz = dL / kept.z.size * (c * jax.lax.logistic(c * wide(kept.z)))
    return PrimalType.of(kept.z)(dz), None


binary_cross_entropy_with_logits.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=binary_cross_entropy_with_logits,
    source="D4, Gradient Calculations",
    arguments={"z": "b s i", "y": "b s i < 2"},
    # two comparisons and two selections for c, c z, softplus (five and two), the mean
    forward=OpCost(11 * b * s * i, 2 * b * s * i),
    backward=OpCost(10 * b * s * i + 1, b * s * i),
    adjustments={"(dL/N) c σ(c z), not counted": 10 * b * s * i + 1},
    residuals=item * b * s * i + 4 * b * s * i,
    special={
        "large logits": Special(values={"z": lambda z: np.where(z > 0, 800, -800)}),
        "zero": Special(values={"z": np.zeros_like}),
    },
)
