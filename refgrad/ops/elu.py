"""Exponential linear unit: `y = x` above zero, `y = α (e^x − 1)` below, α a constant.

Derivation. `dy/dx` is 1 above zero and `α e^x` below. At `x = 0` the two meet only where `α = 1`; here it is α, by
contract:

    dx = α e^x dy where x ≤ 0, else dy

Kept: x (`y + α` is `α e^x` too, but cancels where y nears −α). The forward takes `e^x − 1` in one step, which keeps the
digits of a small x, and neither takes an exponential of `x > 0`, which might overflow and spoil the selection's
gradient. Cost: two selections, a comparison and two products an element; the document prints no count. XLA folds the
product with `α = 1` away. Source: D3, "Activation functions".
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


@custom_vjp(nondiff_argnums=(1,))
@jax.named_scope("elu")
def elu(x: Array, alpha: float) -> Array:
    """Return x where x > 0 and α (e^x − 1) elsewhere.

    Args:
      x: Any shape.
      alpha: α; −α is the limit below.

    Returns:
      An array of x's shape and dtype.

    Raises:
      TypeError: `x` is not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> f"{ops.elu(jnp.array(-1.0), 1.0):.3f}"
      '-0.632'
    """
    check_args("elu", x=(x, "..."))
    above, y = x > 0, wide(x)
    return jnp.where(above, y, alpha * jnp.expm1(jnp.where(above, 0.0, y))).astype(x.dtype)


@jax.named_scope("elu")
def _fwd(x: Array, alpha: float) -> tuple[Array, Array]:
    return elu.fun(x, alpha), x


@jax.named_scope("elu")
def _bwd(alpha: float, kept: Array, dy: Array) -> tuple[Array]:
    above, x, dy = kept > 0, wide(kept), wide(dy)
    return (PrimalType.of(kept)(jnp.where(above, dy, alpha * jnp.exp(jnp.where(above, 0.0, x)) * dy)),)


elu.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=elu,
    source="D3, Activation functions",
    arguments={"x": "b s i"},
    statics={"alpha": 0.5},
    forward=OpCost(4 * b * s * i, b * s * i),
    backward=OpCost(5 * b * s * i, b * s * i),
    adjustments={"α e^x dy and selections, not counted": 5 * b * s * i},
    residuals=item * b * s * i,
    special={
        "zero": Special(values={"x": np.zeros_like}),
        "large inputs": Special(values={"x": lambda x: np.where(x > 0, 800, -800)}),
    },
)
