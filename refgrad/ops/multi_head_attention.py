"""Multi-head causal attention with its projections: `y = heads(x w_qkv + b_qkv)` merged, times `w_out`, plus `b_out`.

Forward. One product makes q, k and v side by side; each is split into `n_h` heads of `d = h/n_h` columns; per head, `p
= causal_softmax(q kᵀ/√d)` and `o = p v`; the heads' outputs stand side by side again and are projected.

Derivation. A chain of linear, query_key, attention_scaling, causal_softmax and attn_value; splitting and merging heads
only moves entries, so that their gradients move them back. The rules are applied from the output to the input:

    do, dw_out, db_out = linear's of dy         dp, dv = attn_value's of do      ds = causal_softmax's of dp
    ds = attention_scaling's of ds              dq, dk = query_key's of ds
    dx, dw_qkv, db_qkv = linear's of (dq | dk | dv)

Kept: what the parts keep, x, q, k, v, p, the merged heads and both weights. Cost: the sum of the parts'.
Source: D2, "Model Architecture Overview", "Final Tally" (qkv_proj to attn_out).
"""

from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import sympy
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec, Special, summed
from refgrad.ops.attention_scaling import SPEC as SCALING
from refgrad.ops.attention_scaling import attention_scaling
from refgrad.ops.attn_value import SPEC as ATTN_VALUE
from refgrad.ops.attn_value import attn_value
from refgrad.ops.causal_softmax import SPEC as SOFTMAX
from refgrad.ops.causal_softmax import causal_softmax
from refgrad.ops.linear import SPEC as LINEAR
from refgrad.ops.linear import linear
from refgrad.ops.query_key import SPEC as QUERY_KEY
from refgrad.ops.query_key import query_key
from refgrad.symbols import a, b, h, i, item, n_h, o, s


class Residuals(NamedTuple):
    """Residuals of each part, in the order of the forward pass."""

    qkv: tuple
    scores: tuple
    scaling: None
    softmax: tuple
    values: tuple
    out: tuple


def split_heads(x: Array, n_head: int) -> Array:
    """(..., s, n_h·d) → (..., n_h, s, d)."""
    return jnp.swapaxes(x.reshape(*x.shape[:-1], n_head, x.shape[-1] // n_head), -2, -3)


def merge_heads(x: Array) -> Array:
    """(..., n_h, s, d) → (..., s, n_h·d)."""
    x = jnp.swapaxes(x, -2, -3)
    return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])


def attend(parts: Any, x: Array, w_qkv: Array, b_qkv: Array, w_out: Array, b_out: Array, n_head: int) -> Array:
    """The forward pass with the operations that `parts` holds by name: with their own rules, or plain ones."""
    qkv = parts.linear(x, w_qkv, b_qkv)  # (..., s, 3h)
    q, k, v = (split_heads(part, n_head) for part in jnp.split(qkv, 3, axis=-1))  # (..., n_h, s, d) each
    scores = parts.attention_scaling(parts.query_key(q, k), q.shape[-1])  # (..., n_h, s, s)
    heads = parts.attn_value(parts.causal_softmax(scores), v)  # (..., n_h, s, d)
    return parts.linear(merge_heads(heads), w_out, b_out)


PARTS = (linear, query_key, attention_scaling, causal_softmax, attn_value)


def _plain() -> SimpleNamespace:
    """The parts as plain functions."""
    return SimpleNamespace(**{part.__name__: part.fun for part in PARTS})


def _keeping(tape: list[Any]) -> SimpleNamespace:
    """The parts' forward passes, each putting what it keeps on the tape."""

    def keep(part: Any):
        def forward(*args):
            y, kept = part.fwd(*args)
            tape.append(kept)
            return y

        return forward

    return SimpleNamespace(**{part.__name__: keep(part) for part in PARTS})


def _check_args(x: Array, w_qkv: Array, b_qkv: Array, w_out: Array, b_out: Array, n_head: int) -> None:
    check_args(
        "multi_head_attention",
        x=(x, "... s h"),
        w_out=(w_out, "h h"),
        b_out=(b_out, "h"),
        w_qkv=(w_qkv, "h 3h"),
        b_qkv=(b_qkv, "3h"),
    )
    h = x.shape[-1]
    if w_qkv.shape[-1] != 3 * h:
        raise ValueError(f"multi_head_attention: w_qkv has {w_qkv.shape[-1]} columns, but 3h = {3 * h}: q, k and v")
    if n_head < 1 or h % n_head:
        raise ValueError(f"multi_head_attention: n_head is {n_head}, but must divide h = {h}")


@custom_vjp(nondiff_argnums=(5,))
@jax.named_scope("multi_head_attention")
def multi_head_attention(x: Array, w_qkv: Array, b_qkv: Array, w_out: Array, b_out: Array, n_head: int) -> Array:
    """Causal self-attention with its projections, as in a block of GPT-2.

    Args:
      x: (..., s, h).
      w_qkv, b_qkv: The projection to queries, keys and values, (h, 3h) and (3h,).
      w_out, b_out: The output projection, (h, h) and (h,).
      n_head: The number of heads, a divisor of h.

    Returns:
      (..., s, h), in x's dtype.

    Raises:
      ValueError: The shapes do not agree, or `n_head` does not divide h.
      TypeError: A dtype is not floating, or the dtypes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> ops.multi_head_attention(jnp.ones((3, 4)), jnp.ones((4, 12)), jnp.ones(12), jnp.eye(4), jnp.zeros(4), 2).shape
      (3, 4)
    """
    _check_args(x, w_qkv, b_qkv, w_out, b_out, n_head)
    return attend(_plain(), x, w_qkv, b_qkv, w_out, b_out, n_head)


@jax.named_scope("multi_head_attention")
def _fwd(x: Array, w_qkv: Array, b_qkv: Array, w_out: Array, b_out: Array, n_head: int) -> tuple[Array, Residuals]:
    _check_args(x, w_qkv, b_qkv, w_out, b_out, n_head)
    tape: list[Any] = []
    y = attend(_keeping(tape), x, w_qkv, b_qkv, w_out, b_out, n_head)
    return y, Residuals(*tape)


@jax.named_scope("multi_head_attention")
def _bwd(n_head: int, kept: Residuals, dy: Array) -> tuple[Array, Array, Array, Array, Array]:
    do, dw_out, db_out = linear.bwd(kept.out, dy)
    dp, dv = attn_value.bwd(kept.values, split_heads(do, n_head))
    (ds,) = causal_softmax.bwd(kept.softmax, dp)
    (ds,) = attention_scaling.bwd(dv.shape[-1], kept.scaling, ds)
    dq, dk = query_key.bwd(kept.scores, ds)
    dqkv = jnp.concatenate([merge_heads(part) for part in (dq, dk, dv)], axis=-1)
    dx, dw_qkv, db_qkv = linear.bwd(kept.qkv, dqkv)
    return dx, dw_qkv, db_qkv, dw_out, db_out


multi_head_attention.defvjp(_fwd, _bwd)

# Each part's row and the widths at which it stands here.
USES = (
    (LINEAR, {i: h, o: 3 * h}),
    (QUERY_KEY, {}),
    (SCALING, {}),
    (SOFTMAX, {}),
    (ATTN_VALUE, {}),
    (LINEAR, {i: h, o: h}),
)
_sum = partial(summed, USES)

SPEC = OpSpec(
    op=multi_head_attention,
    source="D2, Final Tally (qkv_proj to attn_out)",
    arguments={"x": "b s h", "w_qkv": "h 3*h", "b_qkv": "3*h", "w_out": "h h", "b_out": "h"},
    statics={"n_head": n_h},
    scale={"w_qkv": 1 / sympy.sqrt(h), "w_out": 1 / sympy.sqrt(h)},  # scores of the order of 1
    forward=OpCost(_sum(lambda spec: spec.forward.flops), _sum(lambda spec: spec.forward.transcendentals)),
    backward=OpCost(_sum(lambda spec: spec.backward.flops), _sum(lambda spec: spec.backward.transcendentals)),
    published_flops=_sum(lambda spec: spec.published_flops),
    adjustments={
        cause: _sum(lambda spec, cause=cause: spec.adjustments.get(cause, 0)) for cause in ("bias", "n−1 additions")
    },
    # in float32 and float64 the softmax's z and the probabilities that meet v are one array, kept once
    residuals=_sum(lambda spec: spec.residuals) - sympy.KroneckerDelta(a, item) * item * b * n_h * s**2,
    special={
        "one head": Special(dims={"n_h": 1, "d": 6, "h": 6}),
        "heads of one column": Special(dims={"n_h": 6, "d": 1, "h": 6}),
    },
)
