"""L2 penalty: `R = λ Σ_k W_k²`, the strength λ a constant; one for each weight matrix, added to the data's loss.

Derivation. One term of the sum depends on `W_k`, and `∂(W_k²)/∂W_k = 2 W_k`:

    dW = dR (2λ) W

W also reaches the loss through the data; the two gradients meet where it fans out, and are added there.
Kept: W. Cost: dR (2λ) once and a product an entry; the document prints no count.
Source: D3, "How to compute gradients?".
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, wide
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec, Special
from refgrad.symbols import i, item, o


@custom_vjp(nondiff_argnums=(1,))
@jax.named_scope("l2_penalty")
def l2_penalty(W: Array, strength: float) -> Array:
    """Return λ Σ W².

    Args:
      W: Any shape.
      strength: λ ≥ 0.

    Returns:
      The penalty, a scalar in float32 at least.

    Raises:
      ValueError: `strength` is below 0.
      TypeError: `W` is not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> ops.l2_penalty(jnp.array([1.0, 2.0]), 0.5).tolist()
      2.5
    """
    check_args("l2_penalty", W=(W, "..."))
    if not strength >= 0:
        raise ValueError(f"l2_penalty: strength is {strength}, but must be 0 at least, or large weights are rewarded")
    y = wide(W)
    return strength * jnp.sum(y * y)


@jax.named_scope("l2_penalty")
def _fwd(W: Array, strength: float) -> tuple[Array, Array]:
    return l2_penalty.fun(W, strength), W


@jax.named_scope("l2_penalty")
def _bwd(strength: float, kept: Array, dR: Array) -> tuple[Array]:
    return (PrimalType.of(kept)(dR * (2 * strength) * wide(kept)),)


l2_penalty.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=l2_penalty,
    source="D3, How to compute gradients?",
    arguments={"W": "i o"},
    statics={"strength": 0.1},
    forward=OpCost(2 * i * o),
    backward=OpCost(i * o + 1),
    adjustments={"dR (2λ) W, not counted": i * o + 1},
    residuals=item * i * o,
    special={"zero": Special(values={"W": np.zeros_like})},
)
