"""What a step says of itself beside the new state: the loss, and how large each gradient was.

With g the gradient of a leaf, its measure is Σ g² in float32 (stacked layers: one for each layer), and the global norm
‖g‖ = √(Σ over the leaves). One of these is no finite number exactly where the loss or an entry of a gradient is none,
or squares to none. Such a step leaves the state as it was, so that what went wrong can be found in it.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from refgrad.models.gpt2 import Params
from refgrad.train.update_in_backward.clip import square


class Measures(NamedTuple):
    """Of one step, before its update and before clipping."""

    loss: Array
    norm: Array
    """The global norm of the gradients."""
    squares: Params
    """A tree like the parameters: Σ g² of each leaf, of each layer where they are stacked."""


def measures(loss: Array, squares: Params) -> Measures:
    """The measures of a step with these squares."""
    return Measures(loss, jnp.sqrt(sum(jnp.sum(leaf) for leaf in jax.tree.leaves(squares))), squares)


def squares_by_leaf(grads: Params) -> Params:
    """Σ g² of each leaf, of each layer of stacked ones."""
    stacked = isinstance(grads["h"], Mapping)
    ends = {key: jax.tree.map(square, grads[key]) for key in grads if key != "h"}
    return {**ends, "h": jax.tree.map(lambda g: square(g, kept=int(stacked)), grads["h"])}


def unless_finite(number: Array) -> Callable[[Any, Any], Any]:
    """A choice between two trees, (new, old): the new where `number` is finite, else the old."""
    finite = jnp.isfinite(number)
    return lambda new, old: jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
