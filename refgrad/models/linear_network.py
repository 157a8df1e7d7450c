"""D0's two-layer linear network as pure functions: H₁ = X W₁, H₂ = H₁ W₂, loss = mean(H₂²).

X is (B, D), W₁ (D, D), W₂ (D, C). `PRINTED` holds the document's FLOP counts, and `exact` what the operations'
rows add up to; both leave out nothing but what they name.
Source: D0, "Matrix Gradients by Hand and Backward FLOPs".
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import sympy
from jax import Array

from refgrad.models._costs import priced, total
from refgrad.models.inputs import check_widths
from refgrad.ops import OpCost, operations
from refgrad.symbols import B, C, D

Params = dict[str, Array]
# As printed: the products forward, the backward pass's running total after each gradient, and what D0 says of it.
PRINTED: Mapping[str, sympy.Expr] = {
    "forward": 2 * B * D * D + 2 * B * D * C,
    "dW2": 2 * B * D * C,
    "dH1": 4 * B * D * C,
    "dW1": 4 * B * D * C + 2 * B * D * D,
    "dX": 4 * B * D * C + 4 * B * D * D,
}


def init(key: Array, width: int, classes: int) -> Params:
    """Random W1 (D, D) and W2 (D, C) in float32, normal of 1/√D. Raises ValueError for a width below 1."""
    check_widths(width=width, classes=classes)
    first, second = jax.random.split(key)
    return {
        "W1": jax.random.normal(first, (width, width), jnp.float32) / width**0.5,
        "W2": jax.random.normal(second, (width, classes), jnp.float32) / width**0.5,
    }


def apply(params: Params, x: Array, rules: str = "derived") -> Array:
    """X (B, D) → H₂ (B, C), by the derived rules or by "autodiff". Raises ValueError where widths do not agree."""
    matmul = operations(rules).matmul
    return matmul(matmul(x, params["W1"]), params["W2"])


def loss(params: Params, x: Array, rules: str = "derived") -> Array:
    """Mean of H₂'s squares, a scalar. Arguments and errors as in `apply`."""
    return operations(rules).mean_square(apply(params, x, rules))


def exact(input_gradient: bool) -> Mapping[str, OpCost]:
    """The network's FLOPs from the rows of its operations: "forward" and "backward", in XLA's convention.

    Without the input gradient, the product dX = dH₁ W₁ᵀ does not run.
    """
    parts = [priced("matmul", i=D, o=D), priced("matmul", i=D, o=C), priced("mean_square", i=C)]
    return total(parts, 0 if input_gradient else 2 * B * D * D)
