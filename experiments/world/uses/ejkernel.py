"""ejkernel: attention, state spaces and losses, the XLA implementations."""

import jax
import jax.numpy as jnp
from ejkernel.kernels._xla.flash_attention import flash_attention
from ejkernel.kernels._xla.fused_cross_entropy import fused_cross_entropy
from ejkernel.kernels._xla.mean_pooling import mean_pooling
from ejkernel.kernels._xla.recurrent import recurrent
from ejkernel.kernels._xla.state_space_v1 import state_space_v1
from ejkernel.kernels._xla.state_space_v2 import state_space_v2
from ejkernel.xla_utils.utils import identity_dtype_convert

from world.use import Use, normal, positive

# batch, sequence, heads, head dimension
Q, K, V = (normal(1, 4, 1, 2, seed=seed) for seed in range(3))
EXACT = {"precision": jax.lax.Precision.HIGHEST}


def flash(q, k, v, **more):
    """Run flash attention at the scale 0.7, in full precision."""
    return flash_attention(q, k, v, softmax_scale=0.7, **EXACT, **more)


def softmax_attention(q, k, v, bias=0.0):
    """Run attention as written, at the scale 0.7."""
    scores = 0.7 * jnp.einsum("bqhd,bkhd->bhqk", q, k) + bias
    weights = jnp.exp(scores)
    return jnp.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), v)


def linear_attention(q, k, v):
    """Run linear attention as a loop over positions."""
    state, out = jnp.zeros((2, 2)), []
    for t in range(4):
        state = state + jnp.outer(k[0, t, 0], v[0, t, 0])
        out.append(q[0, t, 0] @ state)
    return jnp.stack(out)[None, :, None]


def recurrence(q, k, v):
    """Run the recurrence without a gate."""
    return recurrent(q, k, v, softmax_scale=1.0)[0]


def gated(q, k, v, g):
    """Run the recurrence with a gate."""
    return recurrent(q, k, v, g, softmax_scale=1.0)[0]


def cross_entropy(logits):
    """Return the fused cross-entropy against three fixed targets."""
    return fused_cross_entropy(logits, jnp.array([0, 2, 3], jnp.int32))


def first(f):
    """Wrap f so that it returns its first output."""
    return lambda *args: f(*args)[0]


CELLS = (
    normal(1, 3, 2),
    -positive(2, 2),
    normal(1, 3, 2, seed=1),
    normal(1, 3, 2, seed=2),
    normal(2, seed=3),
    positive(1, 3, 2),
)
HEADS = (
    normal(1, 3, 2, 2),
    -positive(2),
    normal(1, 3, 1, 2, seed=1),
    normal(1, 3, 1, 2, seed=2),
    normal(2, seed=3),
    positive(1, 3, 2),
)

USES = [
    Use("flash_attention", flash, (Q, K, V), plain=softmax_attention),
    Use(
        "flash_attention, causal",
        lambda q, k, v: flash(q, k, v, causal=True),
        (Q, K, V),
        plain=lambda q, k, v: softmax_attention(q, k, v, jnp.where(jnp.tri(4, dtype=bool), 0.0, -jnp.inf)),
    ),
    Use(
        "flash_attention, bias",
        lambda q, k, v, b: flash(q, k, v, bias=b),
        (Q, K, V, normal(1, 1, 4, 4)),
        expected="wrong",
        why="the gradient of the bias is always 0",
        plain=softmax_attention,
    ),
    Use(
        "flash_attention, sinks",
        lambda q, k, v, s: flash(q, k, v, softmax_aux=s),
        (Q, K, V, normal(1)),
        expected="wrong",
        why="the gradient of the sinks is always 0",
    ),
    Use(
        "recurrent",
        recurrence,
        (Q, K, V),
        expected="wrong",
        why="jit(grad) raises; eagerly dk is 100 % wrong",
        plain=linear_attention,
    ),
    Use(
        "recurrent, gated",
        gated,
        (Q, K, V, -positive(1, 4, 1, 2)),
        expected="wrong",
        why="jit(grad) raises; eagerly dk is 100 % wrong",
    ),
    Use(
        "identity_dtype_convert",
        identity_dtype_convert(jnp.float32),
        (jnp.asarray(normal(3), jnp.bfloat16),),
        expected="wrong",
        why="a float32 cotangent of a bfloat16 primal",
    ),
    Use("identity_dtype_convert, same dtype", identity_dtype_convert(jnp.float32), (normal(3),), plain=lambda x: x),
    Use("mean_pooling", lambda x: mean_pooling(x, 2), (normal(1, 4, 3),)),
    Use("fused_cross_entropy", first(cross_entropy), (normal(3, 4),)),
    Use("state_space_v1", first(state_space_v1), CELLS, {"seconds": 180}),
    Use("state_space_v2", first(state_space_v2), HEADS, {"seconds": 180}),
]
