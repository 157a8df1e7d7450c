"""Two linear layers with a GELU between them: `y = GELU(u) w₂ + b₂`, `u = x w₁ + b₁`.

Derivation. A chain of `linear`, `gelu` and `linear`, whose rules are applied from the output to the input. The second
layer's weight gradient asks for `a = GELU(u)` and the GELU's for its slope at u: both come from one exponential of the
pre-activation (see `gelu`), so that a is not kept:

    da = dy w₂ᵀ        a, a′ = GELU(u), GELU′(u)        dw₂, db₂ = linear's of dy at a        du = da a′
    dx, dw₁, db₁ = linear's of du at x

Kept: x, u and both weights: a, as large as u, is not. Cost: that of the parts, and GELU's value again once da exists
(see `depend_on`): three operations an element, since it shares all but the last product with its slope.
Source: D2, "Final Tally" (mlp_up, gelu, mlp_down).
"""

from functools import partial
from typing import NamedTuple

import jax
import sympy
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, depend_on
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec, summed
from refgrad.ops.fused.gelu import SPEC as GELU
from refgrad.ops.fused.gelu import gelu, value_and_slope
from refgrad.ops.fused.linear import SPEC as LINEAR
from refgrad.ops.fused.linear import Residuals as Linear
from refgrad.ops.fused.linear import input_gradient, linear, parameter_gradients
from refgrad.symbols import b, i, item, o, s


class Residuals(NamedTuple):
    """x (..., i), u (..., o), w₁ (i, o), w₂ (o, i), and the types of both biases."""

    x: Array
    u: Array
    w_1: Array
    w_2: Array
    b_1: PrimalType
    b_2: PrimalType


@custom_vjp
@jax.named_scope("mlp")
def mlp(x: Array, w_1: Array, b_1: Array, w_2: Array, b_2: Array) -> Array:
    """Return GELU(x w₁ + b₁) w₂ + b₂.

    Args:
      x: (..., i).
      w_1, b_1: The first projection, (i, o) and (o,).
      w_2, b_2: The second projection, (o, i) and (i,).

    Returns:
      (..., i), in x's dtype.

    Raises:
      ValueError: The shapes do not agree.
      TypeError: A dtype is not floating, or the dtypes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> f"{ops.fused.mlp(jnp.ones(1), jnp.ones((1, 1)), jnp.zeros(1), jnp.ones((1, 1)), jnp.zeros(1))[0]:.3f}"
      '0.841'
    """
    return _fwd(x, w_1, b_1, w_2, b_2)[0]


@jax.named_scope("mlp")
def _fwd(x: Array, w_1: Array, b_1: Array, w_2: Array, b_2: Array) -> tuple[Array, Residuals]:
    check_args("fused.mlp", x=(x, "... i"), w_1=(w_1, "i o"), b_1=(b_1, "o"), w_2=(w_2, "o i"), b_2=(b_2, "i"))
    u = linear.fun(x, w_1, b_1)  # (..., o)
    return linear.fun(gelu.fun(u), w_2, b_2), Residuals(x, u, w_1, w_2, PrimalType.of(b_1), PrimalType.of(b_2))


@jax.named_scope("mlp")
def _bwd(kept: Residuals, dy: Array) -> tuple[Array, Array, Array, Array, Array]:
    da = input_gradient(dy, kept.w_2)
    value, slope = value_and_slope(depend_on(kept.u, da))
    dw_2, db_2 = parameter_gradients(value.astype(kept.u.dtype), dy, PrimalType.of(kept.w_2), kept.b_2)
    du = (da * slope).astype(kept.u.dtype)
    dx, dw_1, db_1 = linear.bwd(Linear(kept.x, kept.w_1, kept.b_1), du)
    return dx, dw_1, db_1, dw_2, db_2


mlp.defvjp(_fwd, _bwd)

USES = ((LINEAR, {}), (GELU, {i: o}), (LINEAR, {i: o, o: i}))
_sum = partial(summed, USES)
AGAIN = 3 * b * s * o  # u + 0·da, u σ(z)

SPEC = OpSpec(
    op=mlp,
    source="D2, Final Tally (mlp_up, gelu, mlp_down)",
    arguments={"x": "b s i", "w_1": "i o", "b_1": "o", "w_2": "o i", "b_2": "i"},
    scale={"w_1": 1 / sympy.sqrt(i), "w_2": 1 / sympy.sqrt(o)},
    forward=OpCost(_sum(lambda spec: spec.forward.flops), _sum(lambda spec: spec.forward.transcendentals)),
    backward=OpCost(_sum(lambda spec: spec.backward.flops) + AGAIN, _sum(lambda spec: spec.backward.transcendentals)),
    published_flops=_sum(lambda spec: spec.published_flops),
    adjustments={
        "bias": _sum(lambda spec: spec.adjustments.get("bias", 0)),
        "transcendental split": sympy.sympify(GELU.adjustments["transcendental split"]).subs(i, o),
        "GELU's value recomputed": AGAIN,
    },
    residuals=item * (b * s * i + b * s * o + 2 * i * o),
)
