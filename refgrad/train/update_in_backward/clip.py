"""Clipping by the global norm when no two layers' gradients are alive at once: two backward passes.

All gradients g are scaled by c/‖g‖ where ‖g‖ ≥ c, and ‖g‖² is the sum of Σ g² over every leaf. The first pass computes
each layer's gradients for their squares alone, the second computes them again and scales them. The backward pass of
blocks and embeddings runs twice, and so does their forward pass where blocks are recomputed; the head's gradients are
kept.

Source: Pascanu et al. (2013), "On the difficulty of training recurrent neural networks"; optax.clip_by_global_norm.
"""

from collections.abc import Callable
from functools import reduce
from operator import add
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from refgrad.train.update_in_backward.layers import LayerVJPs, opaque_call


def squares(grads: Any) -> Array:
    """Return Σ g² over all leaves, in float32 at least."""
    return reduce(add, [square(g) for g in jax.tree.leaves(grads)], jnp.zeros((), jnp.float32))


def square(g: Array, kept: int = 0) -> Array:
    """Return Σ g² over all axes but the first `kept`, in float32 at least."""
    wide = g.astype(jnp.promote_types(g.dtype, jnp.float32))
    return jnp.sum(wide * wide, axis=range(kept, g.ndim))


def scaled(grads: Any, norm: Array, limit: float) -> Any:
    """Return the gradients, scaled to the norm `limit` if theirs is not below it."""
    return jax.tree.map(lambda g: jnp.where(norm < limit, g, g / norm.astype(g.dtype) * limit), grads)


def norm_by_list(
    vjps: LayerVJPs, one: Array, layers: list[Any], kept: list[Any], dx: Array, ends: Callable[[Array], Any]
) -> tuple[Array, list[Any]]:
    """Return ‖g‖, and the residuals again for the second pass; `ends(dx)` are the gradients of all but the layers."""
    total, again = jnp.zeros((), jnp.float32), []
    for n in reversed(range(len(layers))):
        grads, dx = vjps.pull(layers[n], kept[n], dx)
        after = dx, kept[n], kept[n - 1] if n else ()
        total, (dx, now, before) = opaque_call(one, lambda grads, total: total + squares(grads), grads, total, after)
        again.insert(0, now)
        if n:
            kept = [*kept[: n - 1], before]
    total, again = opaque_call(one, lambda grads, total: total + squares(grads), ends(dx), total, again)
    return jnp.sqrt(total), again


def norm_by_scan(vjps: LayerVJPs, layers: Any, kept: Any, dx: Array, ends: Callable[[Array], Any]) -> Array:
    """Return ‖g‖ of stacked layers; `ends(dx)` are the gradients of all but the layers."""

    def iteration(carry: tuple[Array, Array], x: Any) -> tuple[tuple[Array, Array], None]:
        (dx, total), (layer, kept) = carry, x
        grads, dx = vjps.pull(layer, kept, dx)
        return (dx, total + squares(grads)), None

    (dx, total), _ = lax.scan(iteration, (dx, jnp.zeros((), jnp.float32)), (layers, kept), reverse=True)
    return jnp.sqrt(total + squares(ends(dx)))
