"""Binary cross-entropy on probabilities: `L = −(1/N) Σ_i (y_i log p_i + (1 − y_i) log(1 − p_i))`, `y_i` 0 or 1.

Forward. A label selects one of the two logarithms. To multiply by 0 instead gives `0 · (−∞)`, NaN, where p is 0 or 1.
`log(1 − p)` is taken in one step, which keeps the digits of a small p.

Derivation. L depends on `p_i` through one term, whose derivative is `−(1/N)/p_i` where `y_i = 1` and `(1/N)/(1 − p_i)`
where `y_i = 0`:

    dp = (dL/N) / q,  q = −p where y = 1, else 1 − p

At the ends, by contract: where the label says p is surely right (`p = 1` and `y = 1`, `p = 0` and `y = 0`) a term's
loss is 0 and its gradient `∓dL/N`; where it is surely wrong the loss is ∞ and the gradient ∓∞, nothing is clipped.
`binary_cross_entropy_with_logits` stays finite. A label other than 0 and 1 gives NaN, loss and gradient. Kept: p and
the labels. Cost: `dL/N` once; an entry has two comparisons, two selections, −p, `1 − p` and a division; the document
prints no count. Source: D4, "Definitions", "Gradient Calculations".
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
from refgrad.symbols import b, i, item, s


class Residuals(NamedTuple):
    """p and the labels y, of one shape."""

    p: Array
    y: Array


@custom_vjp
@jax.named_scope("binary_cross_entropy")
def binary_cross_entropy(p: Array, y: Array) -> Array:
    """Return the mean of −log p where y is 1 and of −log(1 − p) where y is 0.

    Args:
      p: Probabilities of any shape.
      y: Integer labels, 0 or 1, of p's shape.

    Returns:
      The loss, a scalar in float32 at least.

    Raises:
      ValueError: The shapes do not agree, or the batch is empty.
      TypeError: `p` is not floating, or `y` not integer.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> f"{ops.binary_cross_entropy(jnp.array([0.5, 0.5]), jnp.array([1, 0])):.3f}"
      '0.693'
    """
    check_args("binary_cross_entropy", p=(p, "..."), y=(y, "... < 2"))
    if not p.size:
        raise ValueError(f"binary_cross_entropy: p has shape {p.shape}, but a mean needs one entry")
    p, one, zero = wide(p), y == 1, y == 0
    log_p = jnp.log(jnp.where(one, p, jnp.where(zero, 1.0, jnp.nan)))
    log_rest = jnp.log1p(-jnp.where(zero, p, 0.0))
    return -jnp.mean(log_p + log_rest)


@jax.named_scope("binary_cross_entropy")
def _fwd(p: Array, y: Array) -> tuple[Array, Residuals]:
    return binary_cross_entropy.fun(p, y), Residuals(p, y)


@jax.named_scope("binary_cross_entropy")
def _bwd(kept: Residuals, dL: Array) -> tuple[Array, None]:
    p = wide(kept.p)
    q = jnp.where(kept.y == 1, -p, jnp.where(kept.y == 0, 1 - p, jnp.nan))
    return PrimalType.of(kept.p)(dL / kept.p.size / q), None


binary_cross_entropy.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=binary_cross_entropy,
    source="D4, Gradient Calculations",
    arguments={"p": "b s i", "y": "b s i < 2"},
    domain={"p": lambda x: 1 / (1 + np.exp(-x))},
    # two comparisons, three selections, a negation, the sum of the logarithms, its mean; the mean's negation
    forward=OpCost(8 * b * s * i + 1, 2 * b * s * i),
    backward=OpCost(7 * b * s * i + 1),
    adjustments={"(dL/N) / q, not counted": 7 * b * s * i + 1},
    residuals=item * b * s * i + 4 * b * s * i,
    special={
        "surely right": Special(values={"p": np.zeros_like, "y": np.zeros_like}),
        "one label throughout": Special(values={"y": np.ones_like}),
    },
)
