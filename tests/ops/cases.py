"""Parts shared by the tests of every operation: dimensions, none of them square, and differentiable calls of a row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refgrad.ops import TABLE
from refgrad.ops.fused import _cudnn

# Composites of many arguments, whose parts are tried one by one: their own turn is in the slow lane.
LONG = {"fused.block", "fused.mlp", "fused.head_loss", "fused.head_loss_by_vocabulary"}
LONG_CHECKS = {*LONG, "fused.attention"}  # of which `verify.check` takes seconds
NAMES = tuple(TABLE)
EACH = [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in NAMES]
AXES = ("b", "s", "h", "n_h", "d", "V", "i", "o", "m", "c", "H", "W", "k", "l", "v")
DIMS = tuple(
    dict(zip(AXES, lengths, strict=True))
    for lengths in (
        (2, 3, 10, 2, 5, 7, 4, 6, 2, 2, 5, 4, 3, 2, 3),
        (3, 5, 12, 4, 3, 11, 7, 2, 3, 4, 6, 7, 2, 5, 4),
        (1, 4, 14, 2, 7, 9, 3, 5, 5, 9, 4, 3, 1, 3, 9),
        (4, 7, 6, 3, 2, 5, 9, 8, 2, 3, 3, 5, 2, 4, 2),
    )
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
    """Fixed weights of the types of y, an array or a tuple of them, no two alike."""

    def leaf(y, first):
        return jnp.cos(jnp.arange(1, y.size + 1, dtype=jnp.float32) + first).astype(y.dtype).reshape(y.shape)

    leaves, tree = jax.tree.flatten(y)
    return jax.tree.unflatten(tree, [leaf(y, 0.3 * k) for k, y in enumerate(leaves)])


def dot(y, weights):
    """The sum over every leaf of y times its weights."""
    return sum(jax.tree.leaves(jax.tree.map(lambda y, w: jnp.sum(y * w), y, weights)))


def weighted(f):
    """A scalar function of f's arguments: its output against fixed weights, so that no cotangent is constant."""

    def scalar(*arrays):
        y = f(*arrays)
        return dot(y, weights(y))

    return scalar


def gradients(f, arrays):
    """The gradients of the weighted f by its floating arguments."""
    return jax.jit(jax.grad(weighted(f), floats(arrays)))(*arrays)


def relative_error(got, want):
    """max|got − want| / max|want|, absolute where want is 0; NaN is never close."""
    got, want = (np.asarray(x, np.float64) for x in (got, want))
    scale = np.max(np.abs(want), initial=0.0)
    return np.max(np.abs(got - want), initial=0.0) / (scale or 1.0)


def stand_in_for_cudnn(monkeypatch):
    """JAX's own attention in the place of cuDNN's, as if this were a GPU; it needs standard dtype promotion."""
    monkeypatch.setattr(_cudnn, "IMPLEMENTATION", "xla")
    monkeypatch.setattr(_cudnn.jax, "default_backend", lambda: "gpu")
    return _cudnn.KERNEL
