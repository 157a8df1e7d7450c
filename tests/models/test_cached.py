"""The key/value cache: the logits of the full forward at every position, however the text is cut into pieces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refgrad.models import cached, gpt2
from tests.ops.cases import relative_error

CONFIGS = {
    "tied": gpt2.Config(n_layer=2, n_head=3, n_embd=12, n_positions=11, vocab_size=17),
    "untied": gpt2.Config(n_layer=1, n_head=5, n_embd=10, n_positions=11, vocab_size=13, tie_word_embeddings=False),
    "another epsilon": gpt2.Config(n_layer=2, n_head=1, n_embd=7, n_positions=11, vocab_size=5, layer_norm_epsilon=0.1),
}


def model(config, dtype, batch, length):
    """Random parameters, biases and gains too, and random ids (batch, length)."""
    random = np.random.default_rng(3)
    params = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape) / 2, dtype), gpt2.shapes(config))
    return params, random.integers(0, config.vocab_size, (batch, length)).astype(np.int32)


extend = jax.jit(cached.extend, static_argnames="config")
full_forward = jax.jit(gpt2.logits, static_argnames="config")


def read(params, tokens, config, pieces, capacity):
    """The logits of `tokens` read in pieces of these lengths, one compiled program for each length."""
    cache = cached.empty(params, config, tokens.shape[0], capacity)
    logits, start = [], 0
    for length in pieces:
        found, cache = extend(params, cache, tokens[:, start : start + length], config=config)
        logits.append(np.asarray(found))
        start += length
    assert int(cache.length) == start == tokens.shape[1]
    return np.concatenate(logits, axis=1)


CUTS = ((3, *(1,) * 8), (3, 5, 2), (1,) * 11, (10, 1), (5,))


@pytest.mark.parametrize(
    ("name", "pieces"),
    [
        pytest.param(name, pieces, marks=() if (name, n) == ("tied", 0) else pytest.mark.slow)
        for name in CONFIGS
        for n, pieces in enumerate(CUTS)
    ],
)
def test_the_full_forwards_logits(x64, name, pieces):
    config = CONFIGS[name]
    params, tokens = model(config, "float64", 2, sum(pieces))
    full = full_forward(params, tokens, config=config)
    got = read(params, tokens, config, pieces, config.n_positions)
    for position in range(sum(pieces)):
        assert relative_error(got[:, position], full[:, position]) <= 1e-13


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("bfloat16", 0.1)])
def test_in_the_parameters_dtype(dtype, bound):
    config = CONFIGS["tied"]
    params, tokens = model(config, dtype, 1, 9)
    got = read(params, tokens, config, (4, 1, 1, 1, 1, 1), 9)  # a cache of less than n_positions
    assert got.dtype == dtype
    assert relative_error(got, full_forward(params, tokens, config=config)) <= bound
    if dtype == "float32":
        assert np.array_equal(got, read(gpt2.stack(params), tokens, config, (4, 1, 1, 1, 1, 1), 9))


def test_a_longer_text_than_the_cache():
    config = CONFIGS["tied"]
    params, tokens = model(config, "float32", 1, 5)
    cache = cached.empty(params, config, 1, 5)
    _, cache = extend(params, cache, tokens[:, :4], config=config)
    with pytest.raises(ValueError, match="tokens end at position 6, but the cache has a capacity of 5: make"):
        cached.extend(params, cache, tokens[:, :2], config)
    assert np.all(np.isnan(extend(params, cache, tokens[:, :2], config=config)[0]))
    assert np.all(np.isfinite(extend(params, cache, tokens[:, :1], config=config)[0]))


@pytest.mark.parametrize(
    ("batch", "capacity", "tokens", "error", "message"),
    [
        (0, 5, [[1]], ValueError, "batch is 0"),
        (1, 12, [[1]], ValueError, "capacity is 12, but must lie between 1 and n_positions = 11"),
        (1, 5, [[17]], ValueError, "is 17, but ids lie between 0 and 16"),
        (1, 5, [[1] * 6], ValueError, "6 positions"),
        (1, 5, [[1.0]], TypeError, "cast it to int32"),
        (2, 5, [[1]], ValueError, r"tokens has shape \(1, 1\), but the cache holds 2 texts"),
        (1, 5, [1], ValueError, r"tokens has shape \(1,\), but the cache holds 1 texts"),
    ],
)
def test_bad_arguments_are_named(batch, capacity, tokens, error, message):
    config = CONFIGS["tied"]
    params, _ = model(config, "float32", 1, 1)
    with pytest.raises(error, match=message):
        cached.extend(params, cached.empty(params, config, batch, capacity), np.array(tokens), config)
