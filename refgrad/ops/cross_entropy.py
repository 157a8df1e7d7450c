"""Cross-entropy as the document composes it: L = nll(log_softmax(x), targets).

Derivation. The chain of the two rules, from the loss back:

    dp = −(dL/bs) δ(v, t_r)        dx = dp − e^p Σ_v dp

Kept: the log-probabilities and the targets. Cost: the sum of the two rules'. The document's per-layer table has the
4bsV of log-softmax in it, and its total leaves them out. `softmax_cross_entropy` fuses the two.
Source: D2, "Log-softmax Gradients", "Negative Log Likelihood Loss".
"""

from typing import NamedTuple

import jax
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, wide
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec
from refgrad.ops.log_softmax import SPEC as LOG_SOFTMAX
from refgrad.ops.log_softmax import log_softmax
from refgrad.ops.nll import SPEC as NLL
from refgrad.ops.nll import nll


class Residuals(NamedTuple):
    """Residuals of `log_softmax` and `nll`, and the type of x."""

    log_softmax: tuple
    nll: tuple
    x: PrimalType


@custom_vjp
@jax.named_scope("cross_entropy")
def cross_entropy(x: Array, targets: Array) -> Array:
    """Return the mean of −log softmax(x) at the targets.

    Args:
      x: Logits (..., V).
      targets: Integer ids (...) in [0, V).

    Returns:
      The loss, a scalar in float32 at least; NaN for an id outside [0, V).

    Raises:
      ValueError: The shapes do not agree, or the batch is empty.
      TypeError: `x` is not floating, or `targets` not integer.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> f"{ops.cross_entropy(jnp.zeros((1, 2)), jnp.array([0])):.3f}"
      '0.693'
    """
    check_args("cross_entropy", targets=(targets, "... < V"), x=(x, "... V"))
    return nll.fun(log_softmax.fun(wide(x)), targets)


@jax.named_scope("cross_entropy")
def _fwd(x: Array, targets: Array) -> tuple[Array, Residuals]:
    check_args("cross_entropy", targets=(targets, "... < V"), x=(x, "... V"))
    p, kept_log_softmax = log_softmax.fwd(wide(x))
    loss, kept_nll = nll.fwd(p, targets)
    return loss, Residuals(kept_log_softmax, kept_nll, PrimalType.of(x))


@jax.named_scope("cross_entropy")
def _bwd(kept: Residuals, dL: Array) -> tuple[Array, None]:
    dp, _ = nll.bwd(kept.nll, dL)
    (dx,) = log_softmax.bwd(kept.log_softmax, dp)
    return kept.x(dx), None


cross_entropy.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=cross_entropy,
    source="D2, Negative Log Likelihood Loss",
    arguments={"x": "b s V", "targets": "b s < V"},
    forward=OpCost(LOG_SOFTMAX.forward.flops + NLL.forward.flops, LOG_SOFTMAX.forward.transcendentals),
    backward=OpCost(LOG_SOFTMAX.backward.flops + NLL.backward.flops, LOG_SOFTMAX.backward.transcendentals),
    published_flops=LOG_SOFTMAX.published_flops + NLL.published_flops,
    adjustments={**LOG_SOFTMAX.adjustments, **NLL.adjustments},
    residuals=LOG_SOFTMAX.residuals + NLL.residuals,
    special={**LOG_SOFTMAX.special, **NLL.special},
)
