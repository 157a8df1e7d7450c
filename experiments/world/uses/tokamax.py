"""tokamax: attention, gated linear units, norms, ragged products, the XLA implementations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import tokamax

from world.use import Use, normal

Q, K, V = (normal(1, 3, 1, 2, seed=seed) for seed in range(3))


def attention(q, k, v, **more):
    """Run attention at the scale 0.7, in the highest precision."""
    return tokamax.dot_product_attention(q, k, v, implementation="xla", scale=0.7, precision="highest", **more)


def softmax_attention(q, k, v, bias=0.0):
    """Run attention as written, at the scale 0.7."""
    scores = 0.7 * jnp.einsum("bqhd,bkhd->bhqk", q, k) + bias
    weights = jnp.exp(scores)
    return jnp.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), v)


def layer_norm(x, scale, offset):
    """Return tokamax's layer norm."""
    return tokamax.layer_norm(x, scale, offset, implementation="xla")


def plain_layer_norm(x, scale, offset):
    """Return layer norm by its formula."""
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / jnp.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + 1e-6) * scale + offset


def rms_norm(x, scale):
    """Return tokamax's layer norm without the mean."""
    return tokamax.layer_norm(x, scale, None, subtract_mean=False, implementation="xla")


def unit(activation):
    """Return the gated linear unit of one activation, as a function."""

    def applied(x, w):
        return tokamax.gated_linear_unit(x, w, activation=activation, implementation="xla", precision="highest")

    return applied


def ragged(x, w):
    """Return a product of rows with the matrices of two groups, of one and two rows."""
    return tokamax.ragged_dot(x, w, np.array([1, 2], np.int32), implementation="xla", precision="highest")


def cross_entropy(x, w):
    """Return tokamax's linear cross-entropy against three fixed targets."""
    return tokamax.linear_softmax_cross_entropy_loss(x, np.array([0, 2, 1]), w, implementation="xla")


def plain_cross_entropy(x, w):
    """Return the linear cross-entropy by its formula."""
    logits = x @ w
    return jnp.sum(jnp.log(jnp.sum(jnp.exp(logits), -1)) - logits[np.arange(3), np.array([0, 2, 1])])


USES = [
    Use("dot_product_attention", attention, (Q, K, V), plain=softmax_attention),
    Use("dot_product_attention, causal", functools.partial(attention, is_causal=True), (Q, K, V)),
    Use(
        "dot_product_attention, bias",
        lambda q, k, v, bias: attention(q, k, v, bias=bias),
        (Q, K, V, normal(1, 1, 3, 3)),
        plain=softmax_attention,
    ),
    Use("layer_norm", layer_norm, (normal(2, 4), normal(4, seed=1), normal(4, seed=2)), plain=plain_layer_norm),
    Use(
        "rms_norm",
        rms_norm,
        (normal(2, 4), normal(4, seed=1)),
        plain=lambda x, s: x / jnp.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * s,
    ),
    Use(
        "gated_linear_unit, silu",
        unit(jax.nn.silu),
        (normal(2, 3), normal(3, 2, 2)),
        plain=lambda x, w: jax.nn.silu(x @ w[:, 0]) * (x @ w[:, 1]),
    ),
    Use(
        "gated_linear_unit, relu",
        unit(jax.nn.relu),
        (normal(2, 3), normal(3, 2, 2)),
        plain=lambda x, w: jnp.maximum(x @ w[:, 0], 0) * (x @ w[:, 1]),
    ),
    Use(
        "gated_linear_unit, no activation",
        unit(None),
        (normal(2, 3), normal(3, 2, 2)),
        plain=lambda x, w: (x @ w[:, 0]) * (x @ w[:, 1]),
    ),
    Use(
        "ragged_dot",
        ragged,
        (normal(3, 2), normal(2, 2, 2)),
        plain=lambda x, w: jnp.concatenate([x[:1] @ w[0], x[1:] @ w[1]]),
    ),
    Use("linear_softmax_cross_entropy_loss", cross_entropy, (normal(3, 2), normal(2, 4)), plain=plain_cross_entropy),
]
