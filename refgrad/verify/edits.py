"""Edits that make one cotangent wrong: each takes it, and a way to run the rule again on another cotangent."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refgrad.jaxpr.methods import is_symbolic
from refgrad.verify.allowance import allowance

SEEN_IN_FLOAT64 = 1e-6  # the relative error of a scaled cotangent where the dtype is float64

Edit = Callable[[jax.Array, Callable], jax.Array]


def least(dtype: Any, length: int) -> float:
    """Return the smallest relative error that a test must see."""
    return SEEN_IN_FLOAT64 if jnp.finfo(dtype).bits == 64 else 3 * allowance(dtype, length)


def cotangent_edits(leaf: Any, length: int, outputs: list) -> Iterator[tuple[str, Edit]]:
    """Yield the edits that the shape and dtype of a leaf allow, by name."""
    shape, size = np.shape(leaf), int(np.size(leaf))
    if size == 0:
        return
    small = least(leaf.dtype, length)
    yield f"scaled by 1 + {small:.2g}", lambda g, again: g * (1 + small)
    yield "negated", lambda g, again: -g
    yield "zeroed", lambda g, again: jnp.zeros_like(g)
    yield "one entry off", lambda g, again: _one_off(g, 0.1 + small)
    yield "upstream ignored", lambda g, again: again(jnp.ones_like)
    if shape and shape[-1] > 1:
        yield "rolled along its last axis", lambda g, again: jnp.roll(g, 1, -1)
    if len(shape) > 1 and shape[-1] == shape[-2] > 1:
        yield "transposed", lambda g, again: jnp.swapaxes(g, -1, -2)
    if any(a.shape and a.shape[0] > 1 for a in outputs):
        yield "sum over the output's first axis missing", lambda g, again: again(_first_alone)


def swap(j: int) -> Edit:
    """Return the edit that gives the cotangent of leaf `j` in the place of this one."""
    return lambda g, again: again(None, j)


def _one_off(g: jax.Array, by: float) -> jax.Array:
    """The middle entry moved by a part of the largest."""
    flat = jnp.ravel(g)
    return flat.at[flat.size // 2].add(jnp.max(jnp.abs(flat)).astype(g.dtype) * by).reshape(g.shape)


def _first_alone(ct: jax.Array) -> jax.Array:
    """A cotangent with only the first entry of its first axis left."""
    return jnp.asarray(ct).at[1:].set(0) if ct.ndim else ct


def dense(change: Callable) -> Callable:
    """`change` on the float leaves of a cotangent, symbolic zeros made into arrays first."""

    def changed(ct):
        if ct.dtype == jax.dtypes.float0:
            return ct
        return change(jnp.zeros(ct.shape, ct.dtype) if is_symbolic(ct) else ct)

    return changed
