"""Causal attention by NVIDIA's cuDNN, forward and backward, in the place of the blocks: see `attention`.

On a GPU, in 16 bits, its kernels keep what the derived rule keeps, q, k, v, o and the log-sum-exp, and hold the scores
of a tile in registers, where blocks written in JAX pass them through memory. Its rule is that of `attention`, which a
test holds against it; second derivatives it has none.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

KERNEL = "cudnn"
"""The name of the kernel, as `block`."""
IMPLEMENTATION = "cudnn"
"""The implementation of `jax.nn.dot_product_attention`, which tests replace."""
NARROW = ("bfloat16", "float16")

Pullback = Callable[[Array], tuple[Array, Array, Array]]


def attend(q: Array, k: Array, v: Array) -> tuple[Array, Pullback]:
    """o (..., n_h, s, d) of q, k, v (..., n_h, s, d), and do → dq, dk, dv.

    Raises ValueError where JAX's device is not a GPU, and for a dtype or a number of axes that the kernel lacks.
    """
    if jax.default_backend() != "gpu":
        raise ValueError(
            f"fused.attention: block is {KERNEL!r}, but JAX's device here is a {jax.default_backend()}, and cuDNN is "
            "for NVIDIA's GPUs: take blocks, by a number of positions or rules='fused'"
        )
    if q.dtype.name not in NARROW:
        raise ValueError(
            f"fused.attention: block is {KERNEL!r}, but q is {q.dtype}, and its kernel is for {' and '.join(NARROW)}: "
            "take blocks, by a number of positions or rules='fused', or compute_dtype=jnp.bfloat16"
        )
    if q.ndim not in (3, 4):
        raise ValueError(f"fused.attention: block is {KERNEL!r}, but q has shape {q.shape}, not (b, n_h, s, d)")
    return jax.vjp(_kernel, q, k, v)


def _kernel(q: Array, k: Array, v: Array) -> Array:
    """The kernel's axes are (b, s, n_h, d)."""
    turned = partial(jnp.swapaxes, axis1=-3, axis2=-2)
    return turned(
        jax.nn.dot_product_attention(turned(q), turned(k), turned(v), is_causal=True, implementation=IMPLEMENTATION)
    )
