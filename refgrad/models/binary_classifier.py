"""D4's binary classifier: p = σ(max(0, x w₁) w₂ + b), loss = the mean binary cross-entropy of p.

x is (N, 2), w₁ (2, 3), w₂ (3, 1) and b (1,) as D4 has them; any number of inputs and of hidden units works.
`logits` returns the sigmoid's argument; `refgrad.ops.binary_cross_entropy_with_logits` of it is the same loss, finite
for every input.
Source: D4, "The Network", "Gradient Calculations".
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from refgrad.models._costs import priced, total
from refgrad.models.inputs import check_widths
from refgrad.ops import OpCost, operations
from refgrad.symbols import B, D, h

Params = dict[str, Array]


def init(key: Array, inputs: int = 2, hidden: int = 3) -> Params:
    """Random w1 (inputs, hidden) and w2 (hidden, 1) in float32, normal of 1/√inputs and 1/√hidden, and b (1,) zero.

    Raises ValueError for a width below 1.
    """
    check_widths(inputs=inputs, hidden=hidden)
    first, second = jax.random.split(key)
    return {
        "w1": jax.random.normal(first, (inputs, hidden), jnp.float32) / inputs**0.5,
        "w2": jax.random.normal(second, (hidden, 1), jnp.float32) / hidden**0.5,
        "b": jnp.zeros(1, jnp.float32),
    }


def logits(params: Params, x: Array, rules: str = "derived") -> Array:
    """x (..., D) → z (...), by the derived rules or by "autodiff". Raises ValueError where widths do not agree."""
    ops = operations(rules)
    hidden = ops.relu(ops.matmul(x, params["w1"]))
    return jnp.squeeze(ops.linear(hidden, params["w2"], params["b"]), axis=-1)


def apply(params: Params, x: Array, rules: str = "derived") -> Array:
    """x (..., D) → the probability (...) of class 1. Arguments and errors as in `logits`."""
    return operations(rules).sigmoid(logits(params, x, rules))


def loss(params: Params, x: Array, y: Array, rules: str = "derived") -> Array:
    """Mean binary cross-entropy against integer labels y (...), 0 or 1: a scalar, infinite where p is surely wrong.

    Raises ValueError where shapes do not agree, and TypeError for labels that are not integers.
    """
    return operations(rules).binary_cross_entropy(apply(params, x, rules), y)


def exact(input_gradient: bool = True) -> Mapping[str, OpCost]:
    """The network's costs from the rows of its operations: "forward" and "backward", in XLA's convention.

    Without the inputs' gradient its product, dx = dh w₁ᵀ, does not run.
    """
    parts = [
        priced("matmul", i=D, o=h),
        priced("relu", i=h),
        priced("linear", i=h, o=1),
        priced("sigmoid", i=1),
        priced("binary_cross_entropy", i=1),
    ]
    return total(parts, 0 if input_gradient else 2 * B * D * h)
