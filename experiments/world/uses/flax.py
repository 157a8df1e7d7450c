"""flax: quantised products, norms and layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen import fp8_ops

from refgrad.verify import intents
from world.use import Use, normal

CONTRACT = (((1,), (0,)), ((), ()))
SCALE, HISTORY = np.ones((), np.float32), np.ones(4, np.float32)


def product(a, b):
    """Return a · b by flax's product for float8."""
    return fp8_ops.dot_general_with_precision(a, b, CONTRACT)


def rounded(x):
    """Round x to float8 on the way forward."""
    return fp8_ops.in_qdq(jnp.float32, jnp.float8_e4m3fn, x, SCALE, HISTORY)


def rounded_gradient(x):
    """Round the gradient to float8 on the way back."""
    return fp8_ops.out_qdq(jnp.float32, jnp.float8_e5m2, x, SCALE, HISTORY)


def scale_of(x, scale, history):
    """Round x to float8, with the scale and history as arguments."""
    return fp8_ops.in_qdq(jnp.float32, jnp.float8_e4m3fn, x, scale, history)


def applied(module, *args):
    """Return the module's `apply` and its arguments, variables first."""
    variables = module.init(jax.random.key(0), *args)

    def apply(variables, *args):
        return module.apply(variables, *args)

    return apply, (variables, *args)


def layer(name, module, *args, **more):
    """Return the use of one module."""
    return Use(name, *applied(module, *args), **more)


def dropout():
    """Return the use of a dense layer with dropout, which takes keywords."""
    apply, args = applied(nn.Dense(3), normal(2, 3))

    def dropped(variables, x, train, rngs):
        return nn.Dropout(0.5, deterministic=not train).apply({}, apply(variables, x), rngs=rngs)

    kwargs = {"train": True, "rngs": {"dropout": jax.random.key(1)}}
    return Use("Dense with Dropout, train= and rngs=", dropped, args, {"kwargs": kwargs})


USES = [
    Use("dot_general_with_precision", product, (normal(2, 3), normal(3, 2)), plain=lambda a, b: a @ b),
    Use("in_qdq", rounded, (normal(4),), why="a cast to float8 counts as rounding, so that the identity is its slope"),
    Use(
        "in_qdq, straight through",
        rounded,
        (normal(4),),
        {"intent": intents.straight_through},
        expected="meant to differ",
        why="straight-through rounding to float8",
    ),
    Use(
        "in_qdq, scale and history",
        scale_of,
        (normal(4), SCALE, HISTORY),
        expected="wrong",
        why="returns the new scale and history as cotangents, on purpose",
    ),
    Use("out_qdq", rounded_gradient, (normal(4),), expected="wrong", why="rounds the gradient to float8, on purpose"),
    layer("Dense", nn.Dense(3), normal(2, 3)),
    layer("LayerNorm", nn.LayerNorm(), normal(2, 4)),
    layer("RMSNorm", nn.RMSNorm(), normal(2, 4)),
    layer("GroupNorm", nn.GroupNorm(2), normal(2, 4)),
    layer("Conv", nn.Conv(2, (2,)), normal(1, 4, 2)),
    layer("Embed", nn.Embed(5, 3), np.array([0, 2])),
    layer("SelfAttention", nn.MultiHeadDotProductAttention(2), normal(1, 3, 4)),
    layer("LSTM cell", nn.RNN(nn.LSTMCell(2)), normal(1, 3, 2)),
    layer("GRU cell", nn.RNN(nn.GRUCell(2)), normal(1, 3, 2)),
    layer("MLP with gelu", nn.Sequential([nn.Dense(4), nn.gelu, nn.Dense(2)]), normal(2, 3)),
    layer("MLP with relu", nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(2)]), normal(2, 3)),
    dropout(),
]
