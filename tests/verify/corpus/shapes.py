"""Rules that are wrong, or fail, at some sizes only: arguments as text."""

import jax.numpy as jnp

from tests.verify.corpus.family import Family


def add(x, b):
    return x + b[None]


def centred(x):
    return x - jnp.mean(x, axis=-1, keepdims=True)


def centred_slope(args, g):
    return g - jnp.mean(g, axis=-1, keepdims=True)


def rotated(x):
    """Halves of the last axis, the second negated and put first; a middle entry of odd ones stays."""
    half = x.shape[-1] // 2
    a, middle, b = x[:, :half], x[:, half : x.shape[-1] - half], x[:, x.shape[-1] - half :]
    return jnp.concatenate([-b, middle, a], axis=-1)


def rotated_slope(args, g):
    half = g.shape[-1] // 2
    a, middle, b = g[:, :half], g[:, half : g.shape[-1] - half], g[:, g.shape[-1] - half :]
    return jnp.concatenate([b, middle, -a], axis=-1)


def rotated_even(args, g):
    half = (g.shape[-1] + 1) // 2
    return jnp.concatenate([g[:, half:], -g[:, :half]], axis=-1)


def total(x):
    return jnp.sum(x, axis=-1) / max(x.shape[-1], 1)


def blocks(x):
    return x * jnp.arange(1, x.shape[0] + 1, dtype=x.dtype)[:, None]


def blocks_slope(block):
    def bwd(args, g):
        count = g.shape[0] if block is None else g.shape[0] // block * block
        weights = jnp.arange(1, g.shape[0] + 1, dtype=g.dtype)
        return g * jnp.where(jnp.arange(g.shape[0]) < max(count, min(g.shape[0], block or 0)), weights, 0)[:, None]

    return bwd


FAMILIES = [
    Family(
        "add a bias",
        add,
        ("f32[b,h] f32[h]",),
        right={"summed": lambda args, g: (g, jnp.sum(g, axis=0))},
        wrong={
            "squeezed": lambda args, g: (g, jnp.sum(g, axis=0).squeeze()),
            "one row, for batches of more than three": lambda args, g: (g, jnp.sum(g[:3], axis=0)),
        },
    ),
    Family(
        "centre",
        centred,
        ("f32[b,h]",),
        right={"centred": centred_slope},
        wrong={"unbiased: n − 1": lambda args, g: g - jnp.sum(g, axis=-1, keepdims=True) / (g.shape[-1] - 1)},
    ),
    Family(
        "rotate halves",
        rotated,
        ("bf16[b,h]",),
        right={"inverse": rotated_slope},
        wrong={"even sizes only": rotated_even},
    ),
    Family(
        "mean or 0",
        total,
        ("f32[b,h]",),
        right={
            "guarded": lambda args, g: jnp.broadcast_to(g[:, None] / max(args[0].shape[-1], 1), args[0].shape),
        },
        wrong={
            "1/0 without entries": lambda args, g: jnp.broadcast_to(g[:, None] * (1 / args[0].shape[-1]), args[0].shape)
        },
    ),
    Family(
        "weights by row",
        blocks,
        ("f32[b,h]",),
        right={"each": blocks_slope(None)},
        wrong={"blocks of 8, the rest dropped": blocks_slope(8)},
    ),
]
