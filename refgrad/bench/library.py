"""GPT-2 as one composes it today from JAX's and optax's own parts: the contender that a careful user would write.

The parameters are those of `refgrad.models.gpt2`, layers unrolled.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax import Array

from refgrad.models import gpt2


def _norm(x: Array, p: dict[str, Array], eps: float) -> Array:
    return jax.nn.standardize(x, axis=-1, epsilon=eps) * p["weight"] + p["bias"]


def _linear(x: Array, p: dict[str, Array]) -> Array:
    return x @ p["weight"] + p["bias"]


def loss(
    params: gpt2.Params,
    tokens: Array,
    targets: Array,
    config: gpt2.Config,
    kernel: Literal["xla", "cudnn"] | None = None,
) -> Array:
    """Mean cross-entropy, as `gpt2.loss`, by jax.nn.dot_product_attention, jax.nn.gelu and optax's loss."""
    eps, heads = config.layer_norm_epsilon, config.n_head
    length = tokens.shape[-1]
    x = params["wte"]["weight"][tokens] + params["wpe"]["weight"][:length]
    for layer in gpt2.unstack(params)["h"]:
        qkv = _linear(_norm(x, layer["ln_1"], eps), layer["attn"]["c_attn"])
        q, k, v = (part.reshape(*x.shape[:-1], heads, -1) for part in jnp.split(qkv, 3, axis=-1))  # (b, s, n_h, d)
        attended = jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation=kernel).reshape(x.shape)
        x = x + _linear(attended, layer["attn"]["c_proj"])
        hidden = jax.nn.gelu(_linear(_norm(x, layer["ln_2"], eps), layer["mlp"]["c_fc"]), approximate=True)
        x = x + _linear(hidden, layer["mlp"]["c_proj"])
    head: Any = params["wte" if config.tie_word_embeddings else "lm_head"]["weight"]
    logits = (_norm(x, params["ln_f"], eps) @ head.T).astype(jnp.float32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()
