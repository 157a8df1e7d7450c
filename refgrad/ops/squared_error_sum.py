"""Summed squared error as a loss: `L = Σ_k (y_k − t_k)²` over all entries.

Derivation. With `r = y − t` one term of the sum depends on `y_k` and on `t_k`, `∂(r_k²)/∂r_k = 2 r_k`, `∂r_k/∂y_k = 1`
and `∂r_k/∂t_k = −1`:

    dy = 2 dL r        dt = −dy

Kept: r in the dtype of sums, for both y and t. Cost: 2 dL once, a product and a negation an entry; the document prints
no count.
Source: D3, "A note on network size and regularization" (its 20-line network).
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
from refgrad.symbols import a, b, i, s


class Residuals(NamedTuple):
    """r = y − t in the dtype of sums, and the types of y and t."""

    r: Array
    y: PrimalType
    t: PrimalType


@custom_vjp
@jax.named_scope("squared_error_sum")
def squared_error_sum(y: Array, t: Array) -> Array:
    """Return the sum of (y − t)².

    Args:
      y, t: Predictions and targets of one shape and dtype.

    Returns:
      The loss, a scalar in float32 at least.

    Raises:
      ValueError: The shapes do not agree.
      TypeError: A dtype is not floating, or the dtypes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> ops.squared_error_sum(jnp.array([1.0, 3.0]), jnp.array([0.0, 0.0])).tolist()
      10.0
    """
    check_args("squared_error_sum", y=(y, "..."), t=(t, "..."))
    r = wide(y) - wide(t)
    return jnp.sum(r * r)


@jax.named_scope("squared_error_sum")
def _fwd(y: Array, t: Array) -> tuple[Array, Residuals]:
    return squared_error_sum.fun(y, t), Residuals(wide(y) - wide(t), PrimalType.of(y), PrimalType.of(t))


@jax.named_scope("squared_error_sum")
def _bwd(kept: Residuals, dL: Array) -> tuple[Array, Array]:
    dy = (2 * dL) * kept.r
    return kept.y(dy), kept.t(-dy)


squared_error_sum.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=squared_error_sum,
    source="D3, A note on network size and regularization",
    arguments={"y": "b s i", "t": "b s i"},
    forward=OpCost(3 * b * s * i - 1),
    backward=OpCost(2 * b * s * i + 1),
    adjustments={"2 dL r and its negation, not counted": 2 * b * s * i + 1},
    residuals=a * b * s * i,
    special={"nothing wrong": Special(values={"y": np.ones_like, "t": np.ones_like})},
)
