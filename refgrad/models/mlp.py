"""D3's fully connected networks of any depth: x W₁, then max(0, x W₁) W₂, and so on; loss = Σ (y − t)².

Every layer but the last is followed by the activation. Weights are stored in × out, as in D3's 20-line network, whose
rows are examples; where D3 writes W x for one column x, its W is the transpose. Two sizes make the linear classifier.
Source: D3, "What is neural network?", "A note on network size and regularization".
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
from jax import Array

from refgrad.models._activations import activation as activation_of
from refgrad.models._costs import priced, total
from refgrad.models.inputs import check_widths
from refgrad.ops import OpCost, operations
from refgrad.symbols import B

Params = dict[str, Array]


def init(key: Array, sizes: Sequence[int], bias: bool = True) -> Params:
    """Random W1 (sizes[0], sizes[1]), W2 … in float32, normal of 1/√in, and zero b1, b2 … where there is a `bias`.

    Raises ValueError for fewer than two sizes or a size below 1.
    """
    if len(sizes) < 2:
        raise ValueError(f"sizes is {tuple(sizes)}, but a layer has two: its inputs and its outputs")
    check_widths(**{f"sizes[{k}]": size for k, size in enumerate(sizes)})
    params = {}
    for n, (wide, out) in enumerate(pairwise(sizes), 1):
        key, own = jax.random.split(key)
        params[f"W{n}"] = jax.random.normal(own, (wide, out), jnp.float32) / wide**0.5
        if bias:
            params[f"b{n}"] = jnp.zeros(out, jnp.float32)
    return params


def apply(params: Params, x: Array, activation: str = "relu", rules: str = "derived") -> Array:
    """x (..., sizes[0]) → (..., sizes[-1]), by the derived rules or by "autodiff"; a layer's bias may be absent.

    Raises ValueError where widths do not agree, for a missing layer, and for an activation or rules that there are
    none of.
    """
    ops, sigma = operations(rules), activation_of(activation, rules)
    depth = max(1, sum(name.startswith("W") for name in params))
    for n in range(1, depth + 1):
        if f"W{n}" not in params:
            raise ValueError(f"params has {', '.join(params) or 'nothing'}, but no W{n}: make them with init")
        W = params[f"W{n}"]
        x = ops.linear(x, W, params[f"b{n}"]) if f"b{n}" in params else ops.matmul(x, W)
        x = sigma(x) if n < depth else x
    return x


def loss(params: Params, x: Array, t: Array, activation: str = "relu", rules: str = "derived") -> Array:
    """Summed squared error against targets t (..., sizes[-1]), a scalar. Errors as in `apply`."""
    return operations(rules).squared_error_sum(apply(params, x, activation, rules), t)


def exact(
    sizes: Sequence[int], activation: str = "relu", bias: bool = True, input_gradient: bool = True
) -> Mapping[str, OpCost]:
    """The network's costs over B examples from the rows of its operations: "forward" and "backward".

    The targets get no gradient; without the inputs' gradient its product, dx = dh W₁ᵀ, does not run.
    """
    layer = "linear" if bias else "matmul"
    layers = [priced(layer, i=wide, o=out) for wide, out in pairwise(sizes)]
    hidden = [priced(activation, i=size) for size in sizes[1:-1]]
    saved = B * sizes[-1] + (0 if input_gradient else 2 * B * sizes[0] * sizes[1])
    return total([*layers, *hidden, priced("squared_error_sum", i=sizes[-1])], saved)
