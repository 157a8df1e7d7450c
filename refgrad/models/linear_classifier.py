"""D3's linear classifier as one graph: scores s = x W + b, loss = hinge(s, targets) + λ ΣW².

W is (D, C), in × out (D3's C × D, transposed). It reaches the loss along two paths, the scores and the penalty: a copy
gate parts them, and its rule adds the two gradients. Without b the classifier is x W alone; `absorb_bias` makes of a
bias the weight of a constant input 1, with the same scores and the same gradients (a penalty counts it in, however).
Source: D3, "How to compute gradients?"; the absorbed bias is D3's W x, which has none.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from refgrad.models._costs import priced, total
from refgrad.models.inputs import check_widths
from refgrad.ops import OpCost, operations
from refgrad.symbols import B, C, D

Params = dict[str, Array]


def init(key: Array, width: int, classes: int) -> Params:
    """Random W (width, classes) in float32, normal of 1/√width, and b (classes,) zero.

    Raises ValueError for a width below 1.
    """
    check_widths(width=width, classes=classes)
    return {
        "W": jax.random.normal(key, (width, classes), jnp.float32) / width**0.5,
        "b": jnp.zeros(classes, jnp.float32),
    }


def apply(params: Params, x: Array, rules: str = "derived") -> Array:
    """x (..., D) → scores (..., C), by the derived rules or by "autodiff"; without b in `params` x W alone.

    Raises ValueError where widths do not agree.
    """
    ops = operations(rules)
    return ops.linear(x, params["W"], params["b"]) if "b" in params else ops.matmul(x, params["W"])


def loss(
    params: Params, x: Array, targets: Array, strength: float, margin: float = 1.0, rules: str = "derived"
) -> Array:
    """The mean hinge loss of the scores against ids (...) in [0, C), plus the penalty of strength λ on W: a scalar.

    Raises ValueError where widths do not agree and for a strength below 0, and TypeError for targets that are not ids.
    """
    ops = operations(rules)
    to_scores, to_penalty = ops.copy(params["W"])
    data = ops.hinge(apply({**params, "W": to_scores}, x, rules), targets, margin)
    return ops.add(data, ops.l2_penalty(to_penalty, strength))


def absorb_bias(params: Params) -> Params:
    """W (D, C) and b (C,) → W (D + 1, C) whose last row is b, for inputs that `append_one` made."""
    return {"W": jnp.concatenate([params["W"], params["b"][None, :]])}


def append_one(x: Array) -> Array:
    """x (..., D) → (..., D + 1), the last input 1 throughout."""
    return jnp.concatenate([x, jnp.ones((*x.shape[:-1], 1), x.dtype)], axis=-1)


def exact(bias: bool = True, input_gradient: bool = True) -> Mapping[str, OpCost]:
    """The classifier's costs from the rows of its operations: "forward" and "backward", in XLA's convention.

    Without the inputs' gradient its product, dx = ds Wᵀ, does not run.
    """
    scores = priced("linear" if bias else "matmul", i=D, o=C)
    losses = [priced("hinge", V=C), priced("l2_penalty", i=D, o=C)]
    gates = [priced("copy", b=1, i=D * C), priced("add", b=1, i=1)]  # of W, and of the two losses
    return total([scores, *losses, *gates], 0 if input_gradient else 2 * B * D * C)
