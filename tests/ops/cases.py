"""What the tests of every operation share: dimensions, none of them square, and differentiable calls of a row."""

import jax
import jax.numpy as jnp
import numpy as np

from refgrad.ops import TABLE

NAMES = tuple(TABLE)
DIMS = (
    {"b": 2, "s": 3, "h": 10, "n_h": 2, "d": 5, "V": 7, "i": 4, "o": 6, "m": 2, "c": 2},
    {"b": 3, "s": 5, "h": 12, "n_h": 4, "d": 3, "V": 11, "i": 7, "o": 2, "m": 3, "c": 4},
    {"b": 1, "s": 4, "h": 14, "n_h": 2, "d": 7, "V": 9, "i": 3, "o": 5, "m": 5, "c": 9},
    {"b": 4, "s": 7, "h": 6, "n_h": 3, "d": 2, "V": 5, "i": 9, "o": 8, "m": 2, "c": 3},
)
EDGES = {
    "a batch of one": {"b": 1},
    "a sequence of one": {"s": 1},
    "one head": {"n_h": 1, "d": 10},
    "one column a head": {"n_h": 10, "d": 1},
}


def floats(arrays):
    """The positions of the differentiable arguments among the arrays."""
    return tuple(k for k, array in enumerate(arrays) if jnp.issubdtype(array.dtype, jnp.floating))


def weights(y):
    """Fixed weights of the type of y, no two alike."""
    return jnp.cos(jnp.arange(1, y.size + 1, dtype=jnp.float32)).astype(y.dtype).reshape(y.shape)


def weighted(f):
    """A scalar function of f's arguments: its output against fixed weights, so that no cotangent is constant."""

    def scalar(*arrays):
        y = f(*arrays)
        return jnp.sum(y * weights(y))

    return scalar


def gradients(f, arrays):
    """The gradients of the weighted f by its floating arguments."""
    return jax.jit(jax.grad(weighted(f), floats(arrays)))(*arrays)


def relative_error(got, want):
    """max|got − want| / max|want|, absolute where want is 0; NaN is never close."""
    got, want = (np.asarray(x, np.float64) for x in (got, want))
    scale = np.max(np.abs(want), initial=0.0)
    return np.max(np.abs(got - want), initial=0.0) / (scale or 1.0)
