"""Attention scaling: `y = x / √d`.

Forward. `y = x · d^(−1/2)`, element by element; d is the head's width, a constant.

Derivation. `∂y/∂x = d^(−1/2)`, so

    dx = dy · d^(−1/2)

Kept: nothing. Cost: one multiplication an element, as in the document (XLA folds it away where `d = 1`). Source: D2,
"Attention Scaling".
"""

import jax
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import wide
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec
from refgrad.symbols import b, d, n_h, s


@custom_vjp(nondiff_argnums=(1,))
@jax.named_scope("attention_scaling")
def attention_scaling(x: Array, d: int) -> Array:
    """Return x / √d.

    Args:
      x: Scores of any shape.
      d: The size of a head, a positive Python number.

    Returns:
      The scaled scores, of x's shape and dtype.

    Raises:
      ValueError: d ≤ 0.
      TypeError: `x` is not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> ops.attention_scaling(jnp.array([2.0, 6.0]), 4).tolist()
      [1.0, 3.0]
    """
    check_args("attention_scaling", x=(x, "..."))
    if not d > 0:
        raise ValueError(f"attention_scaling: d is {d}, but the head's width is at least 1: pass q.shape[-1]")
    return (wide(x) * d**-0.5).astype(x.dtype)


@jax.named_scope("attention_scaling")
def _fwd(x: Array, d: int) -> tuple[Array, None]:
    return attention_scaling.fun(x, d), None


@jax.named_scope("attention_scaling")
def _bwd(d: int, _: None, dy: Array) -> tuple[Array]:
    return ((wide(dy) * d**-0.5).astype(dy.dtype),)


attention_scaling.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=attention_scaling,
    source="D2, Attention Scaling",
    arguments={"x": "b n_h s s"},
    statics={"d": d},
    forward=OpCost(b * n_h * s**2),
    backward=OpCost(b * n_h * s**2),
    published_flops=b * n_h * s**2,
    residuals=0,
)
