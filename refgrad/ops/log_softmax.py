"""Log-softmax over the last axis: `p_i = x_i − log Σ_j e^(x_j)`.

Forward. `p = y − log Σ_j exp(y_j)` with `y = x − max x`: the shift cancels and enters the gradient as a constant.

Derivation. `∂p_i/∂x_i = 1 − e^(p_i)` and, for `j ≠ i`, `∂p_j/∂x_i = −e^(p_i)`, since `∂(log Σ_k e^(x_k))/∂x_i` is the
softmax, `e^(p_i)`. Summed over both paths:

    dx_i = dp_i − e^(p_i) Σ_j dp_j

Kept: p, in the dtype of sums. Cost: the document's four operations an element (XLA counts the exponential apart as a
transcendental), and `n − 1` additions for n terms. Source: D2, "Log-softmax Gradients".
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
from refgrad.symbols import V, a, b, s


class Residuals(NamedTuple):
    """p (..., n) before it is cast, and the type of x."""

    p: Array
    x: PrimalType


def _log_softmax(x: Array) -> Array:
    """The log-softmax in the dtype of sums."""
    x = wide(x)
    y = x - jax.lax.stop_gradient(jnp.max(x, axis=-1, keepdims=True))
    return y - jnp.log(jnp.sum(jnp.exp(y), axis=-1, keepdims=True))


@custom_vjp
@jax.named_scope("log_softmax")
def log_softmax(x: Array) -> Array:
    """Return x − log Σ_j e^(x_j) over the last axis.

    Args:
      x: Logits (..., n).

    Returns:
      Log-probabilities (..., n).

    Raises:
      TypeError: `x` is not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> f"{ops.log_softmax(jnp.zeros(2))[0]:.3f}"
      '-0.693'
    """
    check_args("log_softmax", x=(x, "... n"))
    return _log_softmax(x).astype(x.dtype)


@jax.named_scope("log_softmax")
def _fwd(x: Array) -> tuple[Array, Residuals]:
    check_args("log_softmax", x=(x, "... n"))
    p = _log_softmax(x)
    return p.astype(x.dtype), Residuals(p, PrimalType.of(x))


@jax.named_scope("log_softmax")
def _bwd(kept: Residuals, dp: Array) -> tuple[Array]:
    dp = wide(dp)
    dx = dp - jnp.exp(kept.p) * jnp.sum(dp, axis=-1, keepdims=True)
    return (kept.x(dx),)


log_softmax.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=log_softmax,
    source="D2, Log-softmax Gradients",
    arguments={"x": "b s V"},
    # maximum and sum with n − 1 each, the shift and the subtraction; exp per element and one logarithm a row
    forward=OpCost(4 * b * s * V - 2 * b * s, b * s * V + b * s),
    backward=OpCost(3 * b * s * V - b * s, b * s * V),
    published_flops=4 * b * s * V,
    adjustments={"transcendental split": -b * s * V, "n−1 additions": -b * s},
    residuals=a * b * s * V,
    special={
        "logits of ±1e4": Special(values={"x": lambda x: np.where(x > 0, 1e4, -1e4)}),
        "equal logits": Special(values={"x": np.zeros_like}),
    },
)
