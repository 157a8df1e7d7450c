"""D1's recurrent network as pure functions: a sequence goes in, an answer comes out of its last state.

h_t = tanh(x_t W_x + h_{t−1} W_h + b_h) from h_0 = 0, answer = h_s W_y + b_y, loss = mean squared error. With the
loss at the end alone, what reaches h_t is ∂L/∂h_s times the product of ∂h_k/∂h_{k−1} for k = t+1 … s, and nothing
else: `gradient_norms` shows it vanish or explode.
Source: D1, "Backpropagation Through Time".
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import sympy
from jax import Array

from refgrad.models._costs import priced, total
from refgrad.models.inputs import check_widths
from refgrad.numerics import product, wide
from refgrad.ops import OpCost, operations
from refgrad.ops.rnn import through_time
from refgrad.symbols import B, a, b, h, i, item, o, s

Params = dict[str, Array]
# Bytes kept for the backward pass: the sequence, h_0, every state and tanh's arguments, both weights; the last state
# again, as its own array, and the weight out; the differences from the targets.
KEPT: sympy.Expr = item * (b * s * i + b * h + b * s * h + i * h + h * h + b * h + h * o) + a * (b * s * h + b * o)


def init(key: Array, inputs: int, hidden: int, outputs: int, radius: float) -> Params:
    """Random W_x (i, h), W_h (h, h), b_h (h,), W_y (h, o), b_y (o,) in float32, biases 0.

    W_h is `radius` times a random orthogonal matrix: the magnitude of its every eigenvalue, and so its spectral radius,
    is `radius`, and so is its norm. The others are normal of 1/√(columns in).
    Raises ValueError for a width below 1, and for a radius that is negative or not finite.
    """
    check_widths(inputs=inputs, hidden=hidden, outputs=outputs)
    if not 0 <= radius < float("inf"):
        raise ValueError(f"radius is {radius}, but must be at least 0 and finite")
    first, second, third = jax.random.split(key, 3)
    return {
        "W_x": jax.random.normal(first, (inputs, hidden), jnp.float32) / inputs**0.5,
        "W_h": jax.nn.initializers.orthogonal(radius)(second, (hidden, hidden), jnp.float32),
        "b_h": jnp.zeros(hidden, jnp.float32),
        "W_y": jax.random.normal(third, (hidden, outputs), jnp.float32) / hidden**0.5,
        "b_y": jnp.zeros(outputs, jnp.float32),
    }


def states(params: Params, x: Array, rules: str = "derived") -> Array:
    """Sequences x (..., s, i) → every state h_1 … h_s (..., s, h).

    Raises ValueError for a sequence without steps, and where widths do not agree.
    """
    return operations(rules).rnn(*_given(params, x))


def apply(params: Params, x: Array, rules: str = "derived") -> Array:
    """Sequences x (..., s, i) → answers (..., o), by the derived rules or by "autodiff". Raises as `states`."""
    return _answer(params, states(params, x, rules)[..., -1, :], rules)


def loss(params: Params, x: Array, targets: Array, rules: str = "derived") -> Array:
    """Mean squared error of the answers against targets (..., o), a scalar. Raises as `states`."""
    return operations(rules).squared_error_mean(apply(params, x, rules), targets)


def exact(input_gradient: bool = True) -> Mapping[str, OpCost]:
    """The network's costs over B sequences from the rows of its operations: "forward" and "backward".

    The targets get no gradient; without the inputs' gradient its product, dx = δ W_xᵀ, does not run.
    """
    parts = [priced("rnn", s=s, i=i, h=h), priced("linear", i=h, o=o), priced("squared_error_mean", i=o)]
    return total(parts, B * o + (0 if input_gradient else 2 * B * s * i * h))


def gradient_norms(params: Params, x: Array, targets: Array) -> Array:
    """‖∂L/∂h_t‖ for t = 1 … s, over the whole batch: (s,), by the derived recurrence. Raises as `states`."""
    ops = operations("derived")
    h, kept = ops.rnn.fwd(*_given(params, x))
    dh_s = jax.grad(lambda last: ops.squared_error_mean(_answer(params, last, "derived"), targets))(h[..., -1, :])
    dh_s = jnp.expand_dims(dh_s, -2)
    dh = jnp.concatenate([jnp.zeros_like(h[..., :-1, :]), dh_s], axis=-2)
    delta, _ = through_time(kept.z, kept.w_h, dh)
    earlier = product("...sk,hk->...sh", delta[..., 1:, :], wide(kept.w_h))  # δ_{t+1} W_hᵀ for t = 1 … s − 1
    g = jnp.concatenate([earlier, wide(dh_s)], axis=-2)
    return jnp.sqrt(jnp.sum(g * g, axis=(*range(g.ndim - 2), -1)))


def _given(params: Params, x: Array) -> tuple[Array, Array, Array, Array, Array]:
    """The recurrence's arguments, with h_0 = 0 of x's sharding. Raises ValueError for a sequence without steps."""
    if x.ndim < 2 or not x.shape[-2]:
        raise ValueError(f"x has shape {x.shape}, but needs a time axis with a step at least: (..., s, i)")
    h_0 = jnp.broadcast_to(jnp.zeros_like(x[..., 0, :1]), (*x.shape[:-2], params["W_h"].shape[0]))
    return x, h_0, params["W_x"], params["W_h"], params["b_h"]


def _answer(params: Params, last: Array, rules: str) -> Array:
    """h_s W_y + b_y."""
    return operations(rules).linear(last, params["W_y"], params["b_y"])
