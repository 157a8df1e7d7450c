"""D1's network with one hidden layer: h = W₁ x + b₁, a = σ(h), o = W₂ a + b₂, loss = mean((o − t)²).

Weights are stored out × in: W₁ (h, D), W₂ (C, h). σ is any activation, the sigmoid unless said otherwise.
Source: D1, "A Small Neural Network", "Matrix Backpropagation".
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from refgrad.models._activations import activation as activation_of
from refgrad.models._costs import priced, total
from refgrad.models.inputs import check_widths
from refgrad.ops import OpCost, operations
from refgrad.symbols import B, C, D, h

Params = dict[str, Array]


def init(key: Array, inputs: int, hidden: int, outputs: int) -> Params:
    """Random W1 (hidden, inputs) and W2 (outputs, hidden) in float32, normal of 1/√inputs and 1/√hidden; b1, b2 zero.

    Raises ValueError for a width below 1.
    """
    check_widths(inputs=inputs, hidden=hidden, outputs=outputs)
    first, second = jax.random.split(key)
    return {
        "W1": jax.random.normal(first, (hidden, inputs), jnp.float32) / inputs**0.5,
        "b1": jnp.zeros(hidden, jnp.float32),
        "W2": jax.random.normal(second, (outputs, hidden), jnp.float32) / hidden**0.5,
        "b2": jnp.zeros(outputs, jnp.float32),
    }


def apply(params: Params, x: Array, activation: str = "sigmoid", rules: str = "derived") -> Array:
    """x (..., D) → o (..., C), by the derived rules or by "autodiff".

    Raises ValueError where widths do not agree, and for an unknown activation or rule set.
    """
    dense, sigma = operations(rules).dense, activation_of(activation, rules)
    return dense(sigma(dense(x, params["W1"], params["b1"])), params["W2"], params["b2"])


def loss(params: Params, x: Array, t: Array, activation: str = "sigmoid", rules: str = "derived") -> Array:
    """Mean squared error against targets t (..., C), a scalar. Errors as in `apply`."""
    return operations(rules).squared_error_mean(apply(params, x, activation, rules), t)


def exact(activation: str = "sigmoid", input_gradient: bool = True) -> Mapping[str, OpCost]:
    """The network's costs from the rows of its operations: "forward" and "backward", in XLA's convention.

    The targets get no gradient; without the inputs' gradient its product, dx = dh W₁, does not run.
    """
    parts = [priced("dense", i=D, o=h), priced(activation, i=h), priced("dense", i=h, o=C)]
    return total([*parts, priced("squared_error_mean", i=C)], B * C + (0 if input_gradient else 2 * B * D * h))
