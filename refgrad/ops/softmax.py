"""Softmax over the last axis: `z_i = e^(x_i) / Σ_j e^(x_j)`.

Forward. `z = e / Σ_j e_j` with `e = exp(x − max x)`: the shift cancels in z, so that it leaves the gradient unchanged
and enters it as a constant.

Derivation. With `S = Σ_j e^(x_j)`, the quotient rule gives `∂z_i/∂x_i = z_i − z_i²` and, for `j ≠ i`, `∂z_j/∂x_i = −z_j
z_i`. Summed over both paths, `dx_i = dz_i z_i − z_i² dz_i − Σ_{j≠i} dz_j z_j z_i`, and the middle term is what the sum
lacks:

    dx_i = z_i (dz_i − Σ_j dz_j z_j)

Kept: z, in the dtype of sums. Cost: four operations an element, as in the document, but `n − 1` additions for n terms.
Source: D2, "Softmax".
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
from refgrad.symbols import a, b, n_h, s


class Residuals(NamedTuple):
    """z (..., n) before it is cast, and the type of x."""

    z: Array
    x: PrimalType


def _softmax(x: Array) -> Array:
    """The softmax in the dtype of sums."""
    x = wide(x)
    e = jnp.exp(x - jax.lax.stop_gradient(jnp.max(x, axis=-1, keepdims=True)))
    return e / jnp.sum(e, axis=-1, keepdims=True)


@custom_vjp
@jax.named_scope("softmax")
def softmax(x: Array) -> Array:
    """Return e^(x_i) / Σ_j e^(x_j) over the last axis.

    Args:
      x: Logits (..., n). A row of −∞ alone has no softmax, and gives NaN.

    Returns:
      Probabilities (..., n), in x's dtype.

    Raises:
      TypeError: `x` is not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> ops.softmax(jnp.zeros(2)).tolist()
      [0.5, 0.5]
    """
    check_args("softmax", x=(x, "... n"))
    return _softmax(x).astype(x.dtype)


@jax.named_scope("softmax")
def _fwd(x: Array) -> tuple[Array, Residuals]:
    check_args("softmax", x=(x, "... n"))
    z = _softmax(x)
    return z.astype(x.dtype), Residuals(z, PrimalType.of(x))


@jax.named_scope("softmax")
def _bwd(kept: Residuals, dz: Array) -> tuple[Array]:
    dz = wide(dz)
    dx = kept.z * (dz - jnp.sum(dz * kept.z, axis=-1, keepdims=True))
    return (kept.x(dx),)


softmax.defvjp(_fwd, _bwd)

# exp and division per element, the maximum and the sum with n − 1 each, and the shift
FORWARD = OpCost(4 * b * n_h * s**2 - 2 * b * n_h * s, b * n_h * s**2)
SPEC = OpSpec(
    op=softmax,
    source="D2, Softmax",
    arguments={"x": "b n_h s s"},
    forward=FORWARD,
    backward=OpCost(4 * b * n_h * s**2 - b * n_h * s),
    published_flops=4 * b * n_h * s**2,
    adjustments={"n−1 additions": -b * n_h * s},
    residuals=a * b * n_h * s**2,
    special={
        "logits of ±1e4": Special(values={"x": lambda x: np.where(x > 0, 1e4, -1e4)}),
        "equal logits": Special(values={"x": np.zeros_like}),
    },
)
