"""Mean squared error as a loss: `L = (1/n) Σ_k (y_k − t_k)²` over all n entries.

Derivation. As for `squared_error_sum`, each term divided by n: with `r = y − t`

    dy = dL (2/n) r        dt = −dy

Every example's part is in the sum, so the gradients of parameters combine the whole batch. Kept: r in the dtype of
sums, for both y and t. Cost: `dL (2/n)` once, a product and a negation an entry; the document prints no count. Source:
D1, "Forward Pass", "Backpropagation Through Batches".
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
@jax.named_scope("squared_error_mean")
def squared_error_mean(y: Array, t: Array) -> Array:
    """Return the mean of (y − t)².

    Args:
      y, t: Predictions and targets of one shape and dtype, one element at least.

    Returns:
      The loss, a scalar in float32 at least.

    Raises:
      ValueError: The shapes differ, or the arrays are empty.
      TypeError: A dtype is not floating, or the dtypes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> ops.squared_error_mean(jnp.array([1.0, 3.0]), jnp.array([0.0, 0.0])).tolist()
      5.0
    """
    check_args("squared_error_mean", y=(y, "..."), t=(t, "..."))
    if not y.size:
        raise ValueError(f"squared_error_mean: y has shape {y.shape}, but a mean needs one entry at least")
    r = wide(y) - wide(t)
    return jnp.mean(r * r)


@jax.named_scope("squared_error_mean")
def _fwd(y: Array, t: Array) -> tuple[Array, Residuals]:
    return squared_error_mean.fun(y, t), Residuals(wide(y) - wide(t), PrimalType.of(y), PrimalType.of(t))


@jax.named_scope("squared_error_mean")
def _bwd(kept: Residuals, dL: Array) -> tuple[Array, Array]:
    dy = dL * (2.0 / kept.r.size) * kept.r
    return kept.y(dy), kept.t(-dy)


squared_error_mean.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=squared_error_mean,
    source="D1, Backpropagation Through Batches",
    arguments={"y": "b s i", "t": "b s i"},
    forward=OpCost(3 * b * s * i),
    backward=OpCost(2 * b * s * i + 1),
    adjustments={"dL (2/n) r and its negation, not counted": 2 * b * s * i + 1},
    residuals=a * b * s * i,
    special={"nothing wrong": Special(values={"y": np.ones_like, "t": np.ones_like})},
)
