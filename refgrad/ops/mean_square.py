"""Mean of squares as a loss: `L = (1/n) Σ_k y_k²` over all n entries of y.

Derivation. One term of the sum depends on `y_k`, and `∂(y_k²)/∂y_k = 2 y_k`, so

    dy = dL (2/n) y

Kept: y. Cost: the document leaves the loss out of its count, forward (n squares, `n − 1` additions and a division, 2n)
and backward (a product for each entry, and `dL (2/n)` once). Source: D0, "Gradient with respect to H₂" (with `n = BC`;
where its first line prints `dh_ij`, `h_ij` is meant).
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
@jax.named_scope("mean_square")
def mean_square(y: Array) -> Array:
    """Return the mean of y².

    Args:
      y: Any shape, one element at least.

    Returns:
      The mean, a scalar in float32 at least.

    Raises:
      ValueError: `y` is empty.
      TypeError: `y` is not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> ops.mean_square(jnp.array([1.0, 3.0])).tolist()
      5.0
    """
    check_args("mean_square", y=(y, "..."))
    if not y.size:
        raise ValueError(f"mean_square: y has shape {y.shape}, but a mean needs one entry at least")
    y = wide(y)
    return jnp.mean(y * y)


@jax.named_scope("mean_square")
def _fwd(y: Array) -> tuple[Array, Array]:
    return mean_square.fun(y), y


@jax.named_scope("mean_square")
def _bwd(kept: Array, dL: Array) -> tuple[Array]:
    return (PrimalType.of(kept)(dL * (2.0 / kept.size) * wide(kept)),)


mean_square.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=mean_square,
    source="D0, Gradient with respect to H₂",
    arguments={"y": "b s i"},
    forward=OpCost(2 * b * s * i),
    backward=OpCost(b * s * i + 1),
    adjustments={"the loss, left out": b * s * i + 1},
    residuals=item * b * s * i,
    special={"zero": Special(values={"y": np.zeros_like})},
)
