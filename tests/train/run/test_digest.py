"""The digest of an array: any bit counts, its place counts, how it is divided does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from refgrad.train.run.digest import digests


def digest(x):
    return digests({"x": x})["x"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "int8", "bool"])
def test_every_bit_counts(dtype):
    words = np.random.default_rng(0).integers(0, 2, (3, 5)).astype(jnp.dtype(dtype))
    bits = 1 if dtype == "bool" else 8 * words.itemsize
    seen = {digest(jnp.asarray(words))}
    for place in range(words.size):
        for bit in range(bits):
            raw = bytearray(words.tobytes())
            raw[place * words.itemsize + bit // 8] ^= 1 << bit % 8
            seen.add(digest(jnp.asarray(np.frombuffer(bytes(raw), words.dtype).reshape(words.shape))))
    assert len(seen) == 1 + words.size * bits


def test_64_bits(x64):
    x = jnp.arange(6.0).reshape(2, 3)
    assert x.dtype == jnp.float64
    assert len({digest(x), digest(x + 1e-15), digest(-x), digest(x.T.reshape(2, 3))}) == 4


def test_places_count():
    x = jnp.arange(12.0).reshape(3, 4)
    others = [x[::-1], x[:, ::-1], x.at[0, 0].set(x[1, 1]).at[1, 1].set(x[0, 0]), -x, jnp.zeros_like(x)]
    assert len({digest(x), *map(digest, others)}) == 6
    signs = x.at[1, 1].multiply(-1).at[2, 2].multiply(-1)  # the highest bit of two words
    assert digest(signs) != digest(x)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("spec", [("a", "b"), (("a", "b"), None), (None, "b")])
def test_the_same_on_every_mesh(kind, spec):
    x = jax.random.normal(jax.random.key(0), (8, 12))
    mesh = jax.make_mesh((2, 2), ("a", "b"), axis_types=(kind, kind))
    assert digest(jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))) == digest(x)


def test_scalars_keys_and_nothing():
    assert digest(jnp.int32(3)) != digest(jnp.int32(4))
    assert digest(jax.random.key(0)) != digest(jax.random.key(1))
    assert digest(jnp.zeros((0, 3))) == "0" * 16
