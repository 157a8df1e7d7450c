"""Text from a model: filters of the next token's distribution, and the loop that draws one token after another.

A token is drawn from softmax(z/T) of its logits z, after two filters in this order, each of which sets what it drops
to −∞ (T → 0: the largest logit, the lowest id of several):

    top-k   drops every id whose logit is below the k-th largest
    top-p   drops every id that is less probable than the last of those whose probabilities, from the largest on, first
            add up to p (nucleus sampling)

Ids that tie with the last one kept are kept too.

Sources: Fan, Lewis, Dauphin, "Hierarchical Neural Story Generation" (2018);
Holtzman et al., "The Curious Case of Neural Text Degeneration" (2020).
"""

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from refgrad._machine import available
from refgrad._text import prefixed
from refgrad.models import cached
from refgrad.models.gpt2 import Config, Ids, Params, shapes
from refgrad.models.inputs import check_ids, check_params
from refgrad.numerics import wide
from refgrad.train.fields import Checked, check, number

COLDEST = 1e-6
"""The least temperature by which float32 logits can be divided; below it, only 0 is allowed."""


@dataclasses.dataclass(frozen=True)
class Sampling(Checked):
    """Parameters of the draw of the next token."""

    section: ClassVar[str] = "sampling"
    temperature: float = number(1.0, least=0)
    """1 is the model's own distribution, 0 takes the most probable token."""
    top_k: int = number(0, least=0)
    """Draw from the k most probable ids; 0 allows all."""
    top_p: float = number(1.0, above=0)
    """Draw from the most probable ids whose probabilities add up to p; 1 allows all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if 0 < self.temperature < COLDEST:
            raise ValueError(f"sampling.temperature is {self.temperature}, but must be at least {COLDEST}, or 0")
        if self.top_p > 1:
            raise ValueError(f"sampling.top_p is {self.top_p}, but is a probability: take 1 for all ids")


def keep_top_k(logits: Array, k: int) -> Array:
    """Return logits (..., V) with −∞ for every id below the k-th largest, 1 ≤ k ≤ V."""
    least = jax.lax.top_k(logits, k)[0][..., -1:]
    return jnp.where(logits >= least, logits, -jnp.inf)


def keep_top_p(logits: Array, p: float) -> Array:
    """Return logits (..., V) with −∞ for all but the most probable ids whose probabilities add up to p, 0 < p ≤ 1."""
    if p == 1:
        return logits  # sums of probabilities may round to 1 before the last
    probabilities = jax.nn.softmax(logits, axis=-1)
    ordered = jnp.sort(probabilities, axis=-1, descending=True)
    before = jnp.cumsum(ordered, axis=-1)[..., :-1]  # of the ids ahead of the second, third, …
    kept = jnp.sum(before < p, axis=-1, keepdims=True, dtype=jnp.int32)  # beside the first
    return jnp.where(probabilities >= jnp.take_along_axis(ordered, kept, axis=-1), logits, -jnp.inf)


def filtered(logits: Array, how: Sampling) -> Array:
    """Return the logits (..., V) of the distribution to draw from, in float32 at least; `temperature` is above 0."""
    logits = wide(logits)
    largest = jnp.max(logits, axis=-1, keepdims=True)
    logits = (logits - largest) / how.temperature  # from 0 down, so that no temperature overflows upwards
    if how.top_k:
        logits = keep_top_k(logits, how.top_k)
    return keep_top_p(logits, how.top_p)


def draw(keys: Array, logits: Array, how: Sampling) -> Array:
    """Return the next id of each sample (samples,), int32, from its key and its logits (samples, V)."""
    if how.temperature == 0:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    return jax.vmap(jax.random.categorical)(keys, filtered(logits, how)).astype(jnp.int32)


def window(n_positions: int) -> int:
    """Return the number of last tokens that are read again when a text outgrows the model's positions."""
    return max(1, n_positions // 2)


def cache_bytes(config: Config, texts: int, tokens: int, width: int) -> int:
    """Return the bytes of the keys and values of `texts` texts of `tokens` tokens, in elements of `width` bytes."""
    return 2 * config.n_layer * config.n_embd * texts * tokens * width


def generate(
    params: Params,
    config: Config,
    prompt: Ids,
    tokens: int,
    how: Sampling = Sampling(),
    seed: int = 0,
    samples: int = 1,
    vocab_size: int | None = None,
) -> Iterator[np.ndarray]:
    """Draw tokens after a prompt, for several texts at once; yield their next ids (samples,), one step at a time.

    Text i depends on the seed and i alone, not on `samples`. One compiled program reads the prompt, another each token.
    A text longer than n_positions goes on from its last n_positions // 2 tokens, read again from position 0; of a
    longer prompt the last n_positions tokens count.

    Args:
        params: The model's parameters, layers as a list.
        config: The model's sizes.
        prompt: Ids (s,), at least one.
        tokens: The number of tokens to draw.
        how: Temperature and filters.
        seed: The seed of the draws.
        samples: The number of texts.
        vocab_size: Draw ids below this alone; by default all of the model's.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is out of bounds, or does not fit the model or the memory, before anything is compiled;
            or, while it yields, logits are not finite.
    """
    limit = config.vocab_size if vocab_size is None else vocab_size
    for name, value, least, most in (
        ("tokens", tokens, 1, None),
        ("samples", samples, 1, None),
        ("seed", seed, 0, 2**32 - 1),
        ("vocab_size", limit, 1, config.vocab_size),
        ("top_k", how.top_k, 0, limit),
    ):
        check(name, value, int, {"least": least})
        if most is not None and value > most:
            raise ValueError(f"{name} is {value}, but must be at most {most}")
    prompt = np.asarray(prompt)
    held, there = min(config.n_positions, prompt.size + tokens - 1), available()
    needed = cache_bytes(config, samples, held, 2) + 4 * samples * config.vocab_size  # the last logits
    if needed > there:
        raise ValueError(
            f"samples is {samples}, which takes {prefixed(needed)} at least, but there are {prefixed(there)} "
            "of memory: lower samples or tokens"
        )
    check_params(params, shapes(config))
    check_ids("prompt", prompt, config.vocab_size, max(prompt.size, config.n_positions))
    if prompt.ndim != 1 or not prompt.size:
        raise ValueError(f"prompt has shape {prompt.shape}, but must be (s,) with at least one id")
    return _generate(params, config, prompt, tokens, how, seed, samples, limit)


def _generate(
    params: Params, config: Config, prompt: np.ndarray, tokens: int, how: Sampling, seed: int, samples: int, limit: int
) -> Iterator[np.ndarray]:
    """Yield as `generate` does, from checked arguments."""
    capacity = min(config.n_positions, prompt.size + tokens - 1)  # the last token is not read
    keep = window(config.n_positions)
    piece = np.tile(prompt[-capacity:].astype(np.int32), (samples, 1))  # (samples, s)
    last = piece[:, -keep:]  # the last tokens of each text
    cache, held = cached.empty(params, config, samples, capacity), 0
    for n in range(tokens):
        if held + piece.shape[1] > capacity:
            cache, held, piece = cached.empty(params, config, samples, capacity), 0, last
        ids, finite, cache = _step(params, cache, piece, np.uint32(seed), np.int32(n), config, how, limit)
        held += piece.shape[1]
        piece = np.asarray(ids)[:, None]
        if not finite:
            raise ValueError(f"the logits of token {n} are not all finite: the parameters are damaged, or diverged")
        last = np.concatenate([last, piece], axis=1)[:, -keep:]
        yield piece[:, 0]


@partial(jax.jit, static_argnames=("config", "how", "limit"), donate_argnames="cache")
def _step(
    params: Params, cache: cached.Cache, piece: Ids, seed: Array, n: Array, config: Config, how: Sampling, limit: int
) -> tuple[Array, Array, cached.Cache]:
    """Read a piece (samples, s) of each text and draw its next id.

    Returns:
        The ids (samples,), True if all logits are finite, and the cache.
    """
    logits, cache = cached.extend(params, cache, piece, config)
    logits = logits[:, -1, :limit]
    text = partial(jax.random.fold_in, jax.random.fold_in(jax.random.key(seed), n))
    keys = jax.vmap(text)(jnp.arange(piece.shape[0]))
    return draw(keys, logits, how), jnp.all(jnp.isfinite(logits)), cache
