"""The measures of a step: its loss, and the size of each gradient.

With g the gradient of a leaf, its measure is Σ g² in float32, one for each layer where they are stacked, and the global
norm is ‖g‖ = √(Σ over the leaves). Loss and norm are finite exactly if the loss and the square of every gradient's
entry are. A step whose measures are not finite leaves the state as it was, so that the cause can be found in it.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from refgrad.models.gpt2 import Params
from refgrad.train.update_in_backward.clip import square


class Measures(NamedTuple):
    """The measures of one step, taken before clipping and update."""

    loss: Array
    norm: Array
    """The global norm of the gradients."""
    squares: Params
    """Σ g² of each leaf, a tree like the parameters; stacked leaves have one for each layer."""


def measures(loss: Array, squares: Params) -> Measures:
    """Return the measures of a step with these squares."""
    return Measures(loss, jnp.sqrt(sum(jnp.sum(leaf) for leaf in jax.tree.leaves(squares))), squares)


def squares_by_leaf(grads: Params) -> Params:
    """Return Σ g² of each leaf; stacked leaves have one for each layer."""
    stacked = isinstance(grads["h"], Mapping)
    ends = {key: jax.tree.map(square, grads[key]) for key in grads if key != "h"}
    return {**ends, "h": jax.tree.map(lambda g: square(g, kept=int(stacked)), grads["h"])}


def unless_finite(number: Array) -> Callable[[Any, Any], Any]:
    """Return a function of two trees (new, old) that returns the new one if `number` is finite, else the old one."""
    finite = jnp.isfinite(number)
    return lambda new, old: jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
