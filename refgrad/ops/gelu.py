"""GELU by tanh: y = ½ x (1 + t), t = tanh(u), u = √(2/π) (x + c x³), c = 0.044715.

Derivation. By the product rule dy/dx = ½ (1 + t) + ½ x dt/dx, with dt/dx = (1 − t²) du/dx and
du/dx = √(2/π) (1 + 3c x²):

    dx = dy (½ (1 + t) + ½√(2/π) x (1 − t²) (1 + 3c x²))

Kept: x; t is computed again. Cost: the document counts 19 operations an element; here x² is made once for u and for
du/dx, the constants are folded into one (two multiplications and one square fewer), and XLA counts tanh apart.
Source: D2, "GELU".
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from refgrad.ops._agree import agree
from refgrad.ops._numerics import Like, wide
from refgrad.ops._row import Cost, Row, Special
from refgrad.symbols import b, i, s, w

A = math.sqrt(2 / math.pi)
C = 0.044715


def _tanh(x: Array) -> tuple[Array, Array]:
    """t and x², in the dtype of sums."""
    x2 = x * x
    return jnp.tanh(A * x * (1 + C * x2)), x2


@jax.custom_vjp
@jax.named_scope("gelu")
def gelu(x: Array) -> Array:
    """x of any shape → GELU(x), element by element. Raises TypeError where x is not floating."""
    agree("gelu", x=(x, "..."))
    t, _ = _tanh(wide(x))
    return (0.5 * wide(x) * (1 + t)).astype(x.dtype)


@jax.named_scope("gelu")
def _fwd(x: Array) -> tuple[Array, Array]:
    return gelu.fun(x), x


@jax.named_scope("gelu")
def _bwd(kept: Array, dy: Array) -> tuple[Array]:
    x = wide(kept)
    t, x2 = _tanh(x)
    dx = wide(dy) * (0.5 * (1 + t) + (0.5 * A) * x * (1 - t * t) * (1 + (3 * C) * x2))
    return (Like.of(kept)(dx),)


gelu.defvjp(_fwd, _bwd)

ROW = Row(
    op=gelu,
    source="D2, GELU",
    arguments={"x": "b s i"},
    forward=Cost(8 * b * s * i, b * s * i),
    backward=Cost(16 * b * s * i, b * s * i),
    document=19 * b * s * i,
    causes={"transcendental split": -b * s * i, "x² shared, constants folded": -2 * b * s * i},
    residuals=w * b * s * i,
    special={
        "large inputs": Special(values={"x": lambda x: np.where(x > 0, 30, -30)}),
        "zero": Special(values={"x": np.zeros_like}),
    },
)
