"""GPT-2 one piece of text after another: keys and values of what was read are kept, and not computed again.

Row i of the causal attention reads q_i of its own position, and k_j, v_j of the positions j ≤ i. Neither k_j nor v_j
depends on what follows j. So a model that has read n tokens reads s more from those s alone, beside the cache:

    o_i = Σ_{j ≤ i} softmax_j(q_i · k_j / √d) v_j        i = n … n + s − 1

The first piece is the prompt (prefill), each later one a token (s = 1); the logits are those of `gpt2.logits` over the
whole text, to rounding. The cache has one length from the beginning, so that every token is read by the same program.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer

from refgrad.models.gpt2 import Config, Ids, Params, shapes, unstack
from refgrad.models.inputs import check_ids, check_params
from refgrad.numerics import lift, product
from refgrad.ops import operations
from refgrad.ops.multi_head_attention import merge_heads, split_heads

PLAIN = operations("autodiff")  # nothing is differentiated here


class Cache(NamedTuple):
    """The number of tokens read, a scalar int32, and each layer's keys and values, (batch, n_head, capacity, d)."""

    length: Array
    keys: tuple[Array, ...]
    values: tuple[Array, ...]


def empty(params: Params, config: Config, batch: int, capacity: int) -> Cache:
    """The cache before the first token, for `batch` texts of at most `capacity` tokens, in the parameters' dtype.

    Raises ValueError for a batch or capacity below 1, or a capacity above n_positions.
    """
    if batch < 1:
        raise ValueError(f"batch is {batch}, but a cache holds at least 1 text")
    if not 1 <= capacity <= config.n_positions:
        raise ValueError(f"capacity is {capacity}, but must lie between 1 and n_positions = {config.n_positions}")
    shape = (batch, config.n_head, capacity, config.n_embd // config.n_head)
    dtype = params["wte"]["weight"].dtype
    keys, values = (tuple(jnp.zeros(shape, dtype) for _ in range(config.n_layer)) for _ in range(2))
    return Cache(jnp.zeros((), jnp.int32), keys, values)


def extend(params: Params, cache: Cache, tokens: Ids, config: Config) -> tuple[Array, Cache]:
    """Read tokens (batch, s) after what the cache holds → their logits (batch, s, vocab_size), and the fuller cache.

    Errors as in `gpt2.logits`; ValueError too for tokens beyond the cache's capacity, or NaN where its length is
    traced, as for ids that are.
    """
    check_params(params, shapes(config))
    batch, _, capacity, _ = cache.keys[0].shape
    check_ids("tokens", tokens, config.vocab_size, capacity)
    if jnp.shape(tokens)[:-1] != (batch,):
        raise ValueError(f"tokens has shape {jnp.shape(tokens)}, but the cache holds {batch} texts: ({batch}, s)")
    tokens = jnp.asarray(tokens)
    start, end = cache.length, cache.length + tokens.shape[-1]
    if not isinstance(end, Tracer) and end > capacity:
        raise ValueError(
            f"tokens end at position {end}, but the cache has a capacity of {capacity}: make an `empty` one with more, "
            "or read the last part of the text again"
        )
    with jax.named_scope("wte"):
        x = PLAIN.token_embedding(params["wte"]["weight"], tokens)  # (batch, s, h)
    with jax.named_scope("wpe"):
        positions = jax.lax.dynamic_slice_in_dim(params["wpe"]["weight"], start, tokens.shape[-1])
        x = PLAIN.position_embedding(x, positions)
    keys, values = [], []
    for n, layer in enumerate(unstack(params)["h"]):
        with jax.named_scope(f"h.{n}"):
            x, k, v = _block(layer, x, cache.keys[n], cache.values[n], start, config)
            keys.append(k)
            values.append(v)
    with jax.named_scope("ln_f"):
        x = _norm(params["ln_f"], x, config)
    with jax.named_scope("lm_head"):
        logits = PLAIN.lm_head(x, params["wte" if config.tie_word_embeddings else "lm_head"]["weight"])
    return jnp.where(end <= capacity, logits, jnp.nan), Cache(end, tuple(keys), tuple(values))


def _block(
    layer: Params, x: Array, keys: Array, values: Array, start: Array, config: Config
) -> tuple[Array, Array, Array]:
    """One layer of the stream x (batch, s, h) from position `start` on → the stream, keys and values with x's own."""
    attn, mlp = layer["attn"], layer["mlp"]
    qkv = _linear(attn["c_attn"], _norm(layer["ln_1"], x, config))  # (batch, s, 3h)
    q, k, v = (split_heads(part, config.n_head) for part in jnp.split(qkv, 3, axis=-1))  # (batch, n_h, s, d)
    keys = jax.lax.dynamic_update_slice_in_dim(keys, k, start, axis=-2)  # (batch, n_h, capacity, d)
    values = jax.lax.dynamic_update_slice_in_dim(values, v, start, axis=-2)
    x = PLAIN.residual(x, _linear(attn["c_proj"], merge_heads(_attend(q, keys, values, start))))
    hidden = PLAIN.gelu(_linear(mlp["c_fc"], _norm(layer["ln_2"], x, config)))
    return PLAIN.residual(x, _linear(mlp["c_proj"], hidden)), keys, values


def _attend(q: Array, keys: Array, values: Array, start: Array) -> Array:
    """Queries (..., s, d) of the positions from `start` on, keys and values (..., capacity, d) → (..., s, d)."""
    scores = product("...id,...jd->...ij", q, keys).astype(q.dtype)
    scores = PLAIN.attention_scaling(scores, q.shape[-1])
    i, j = (jax.lax.broadcasted_iota(jnp.int32, scores.shape[-2:], axis) for axis in (0, 1))
    p = PLAIN.softmax(jnp.where(lift(j <= start + i, scores.ndim), scores, -jnp.inf))
    return product("...ij,...jd->...id", p, values).astype(q.dtype)


def _norm(p: Params, x: Array, config: Config) -> Array:
    return PLAIN.layer_norm(x, p["weight"], p["bias"], config.layer_norm_epsilon)


def _linear(p: Params, x: Array) -> Array:
    return PLAIN.linear(x, p["weight"], p["bias"])
