"""A checksum of an array's bits that does not depend on how the array is divided over devices.

With u_i the i-th 32-bit word of the array (narrower elements widened to one word each, wider ones two),

    D = (Σ_i m(u_i ⊕ a i), Σ_i m(u_i + b i))   mod 2³²,    a and b odd: 64 bits in all.

m is a bijection of 32 bits (the first round of MurmurHash3's finaliser), so that one changed word always changes both
sums, and a i ties a word to its place. Sums of integers are exact in any order: each device sums its own shard, and the
partial sums are added.

Source: Appleby, MurmurHash3 (fmix32), public domain.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

A, B, ROUND = np.uint32(0x9E3779B1), np.uint32(0x85EBCA77), np.uint32(0x85EBCA6B)


def digests(leaves: Mapping[str, Array]) -> dict[str, str]:
    """Return a digest of each leaf, 16 hexadecimal digits; global arrays have the same one in every process."""
    # one program at a time: many with collectives in flight take all of a CPU client's few threads and deadlock
    pairs = {name: jax.block_until_ready(_digest(leaf)) for name, leaf in leaves.items()}
    return {name: "".join(f"{word:08x}" for word in np.asarray(pair).tolist()) for name, pair in pairs.items()}


@jax.jit
def _digest(x: Array) -> Array:
    """Return the digest as (2,) uint32."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    words = _words(x)
    place = jnp.zeros(words.shape, jnp.uint32)
    for axis, length in enumerate(words.shape):
        place = place * np.uint32(length) + lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    terms = _mixed(words ^ place * A), _mixed(words + place * B)

    def add(x: tuple[Array, Array], y: tuple[Array, Array]) -> tuple[Array, Array]:
        return x[0] + y[0], x[1] + y[1]

    return jnp.stack(lax.reduce(terms, (np.uint32(0),) * 2, add, range(words.ndim)))  # together: no temporaries


def _words(x: Array) -> Array:
    """Return the array's bits as uint32, with a last axis of two if an element has 64."""
    if x.dtype == jnp.bool_:
        return x.astype(jnp.uint32)
    size = x.dtype.itemsize
    if size >= 4:
        return lax.bitcast_convert_type(x, jnp.uint32)
    return lax.bitcast_convert_type(x, {1: jnp.uint8, 2: jnp.uint16}[size]).astype(jnp.uint32)


def _mixed(x: Array) -> Array:
    x = (x ^ lax.shift_right_logical(x, np.uint32(16))) * ROUND
    return x ^ lax.shift_right_logical(x, np.uint32(15))
