"""Causal attention by blocks of positions: `o = softmax(q kᵀ/√d, j ≤ i) v`, the probabilities never whole.

Forward. With `x = q̃ kᵀ`, `q̃ = q/√d`, and per query i the maximum `M_i` and `S_i = Σ_{j≤i} e^(x_ij − M_i)`, the
probabilities are `p_ij = e_ij / S_i`, `e_ij = e^(x_ij − M_i)`, and `o_i = (Σ_{j≤i} e_ij v_j) / S_i`. Queries are taken
in blocks of m rows, each against its own prefix of keys and no others: what lies above the block's last row is never
computed.

Derivation. `attn_value`, `softmax` and `query_key` in turn give `dv_j = Σ_i p_ij do_i`, `dp_ij = do_i·v_j`, `dx_ij =
p_ij (dp_ij − Σ_k p_ik dp_ik)`, `dq̃_i = Σ_j dx_ij k_j`, `dk_j = Σ_i dx_ij q̃_i`. The sum over k is `do_i · Σ_k p_ik v_k
= do_i · o_i`, a number for each query, and the probabilities come again from M and S:

    p_ij = e^(x_ij − M_i) / S_i        dv_j = Σ_i p_ij do_i        dx_ij = p_ij (do_i·v_j − do_i·o_i)

A row of dx sums to 0, since `Σ_j p_ij = 1`. As rounded it sums to `r_i = Σ_j dx_ij`: the rounding of `do_i·o_i`, which
large keys and queries multiply. Where one key `J_i` has almost all of the probability, `r_i` is the error of its entry,
whose two terms cancel; elsewhere `p_ij r_i` is that of each. In both cases the entry of `J_i`, a key of the maximum,
gives `r_i` back: the row sums to 0, and the errors are of the size of dx. The sums take dx as it stands, and `J_i`'s
part is added last.

    r_i = Σ_j dx_ij        dq_i = (Σ_j dx_ij k_j − r_i k_{J_i}) / √d        dk_j = Σ_i dx_ij q̃_i − Σ_{J_i = j} r_i q̃_i

The backward pass takes the *keys* in blocks, each against the queries from its first position on, as (keys × queries):
dk and dv of a block are then finished at once, and dq and r alone are summed over the blocks.

Kept: q, k, v, o, J, and M and S, which together are the log-sum-exp `M + log S`; apart they keep its last digits. A
block longer than the sequence is the sequence, and in the place of a block's rows "cudnn" names NVIDIA's kernels, for
which q, k, v and o are 16 bits wide and on a GPU: what they compute is the same, and kept is the log-sum-exp whole.
Cost: with A the sum over the blocks of rows × prefix, which is `s²/2` and half a block more a row, against the
operations that it replaces: the masked blocks are not there; the scores are made again, once the cotangent exists and
the block before is done (see `depend_on`); scaling and row sums act on the `s·d` entries of a head and not on its s². J
is found in the rule's forward pass alone; r is one more column of a product, and what it corrects `s·d` entries a head.
Source: D2, "Activation-to-Activation Multiplications", "Softmax", and its remark that half of the scores is masked; Dao
et al., FlashAttention (2022), for the log-sum-exp in the probabilities' place."""

from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import sympy
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, blocks, depend_on, first_entry, lift, product, wide
from refgrad.ops._check import check_args, check_size
from refgrad.ops._spec import OpCost, OpSpec, Special
from refgrad.ops.fused import _cudnn
from refgrad.ops.fused._cudnn import KERNEL
from refgrad.symbols import a, b, d, item, m, n_h, s


class Residuals(NamedTuple):
    """q, k, v, o (..., s, d); each query's maximum and sum of exponentials (..., s, 1), and its key J (..., s)."""

    q: Array
    k: Array
    v: Array
    o: Array
    top: Array
    total: Array
    key: Array


Block = int | Literal["cudnn"]


def _scaled(q: Array) -> Array:
    """q/√d in q's dtype."""
    return (wide(q) * q.shape[-1] ** -0.5).astype(q.dtype)


def _open(scores: Array, queries: slice, keys: slice, transposed: bool = False) -> Array:
    """`scores` with −∞ where the key stands after the query."""
    position = jax.lax.iota("int32", max(queries.stop, keys.stop))
    i, j = position[queries], position[keys]
    open_ = j[:, None] <= i[None, :] if transposed else j[None, :] <= i[:, None]
    return jnp.where(lift(open_, scores.ndim), scores, -jnp.inf)


def _attend(q: Array, k: Array, v: Array, block: int) -> tuple[Array, Array, Array, Array]:
    """o, M, S and J, one block of queries after another."""
    q, parts = _scaled(q), []
    for rows in blocks(q.shape[-2], block):
        prefix = slice(0, rows.stop)
        keys, values = (x[..., prefix, :] for x in (k, v))
        if parts:
            keys, values = (depend_on(x, first_entry(parts[-1][0])) for x in (keys, values))
        x = product("...id,...jd->...ij", q[..., rows, :], keys)
        x = _open(x, rows, prefix)
        top = jax.lax.stop_gradient(jnp.max(x, axis=-1, keepdims=True))
        e = jnp.exp(x - top)
        total = jnp.sum(e, axis=-1, keepdims=True)
        position = lift(jax.lax.iota(e.dtype, prefix.stop), e.ndim)
        key = jnp.max(jnp.where(e == 1, position, 0.0), axis=-1, keepdims=True)  # e⁰ = 1: half the time of an argmax
        o = product("...ij,...jd->...id", e.astype(v.dtype), values) / total
        parts.append((o.astype(v.dtype), top, total, key))
    o, top, total, key = (jnp.concatenate(part, axis=-2) for part in zip(*parts, strict=True))
    return o, top, total, key[..., 0].astype("int32")


def _above(part: Array, s: int) -> Array:
    """`part`, of the last queries, as the last rows of s."""
    edges = [(0, 0, 0)] * (part.ndim - 2) + [(s - part.shape[-2], 0, 0), (0, 0, 0)]
    return jax.lax.pad(part, jnp.zeros((), part.dtype), edges)


def _added(dq: Array, part: Array) -> Array:
    """dq (..., s, d) with `part` added to its last rows, in place: sums that a compiler could put off until the last
    block would keep every block's part alive."""
    start = dq.shape[-2] - part.shape[-2]
    return jax.lax.dynamic_update_slice_in_dim(dq, dq[..., start:, :] + part, start, dq.ndim - 2)


@partial(jnp.vectorize, signature="(s,d),(r)->(r,d)")
def _rows_at(x: Array, at: Array) -> Array:
    return x.at[at].get(mode="promise_in_bounds", wrap_negative_indices=False)


@partial(jnp.vectorize, signature="(s,d),(r),(r,d)->(s,d)")
def _add_at(x: Array, at: Array, more: Array) -> Array:
    return x.at[at].add(more, mode="promise_in_bounds", wrap_negative_indices=False)


def check_block(op: str, block: Block) -> None:
    """Raise ValueError or TypeError, naming `op` and the value, where `block` is neither rows nor the kernel."""
    if block != KERNEL:
        check_size(op, "block", block, f"the rows of a block of queries, or {KERNEL!r}")


def _check_args(q: Array, k: Array, v: Array, block: Block) -> None:
    check_args("fused.attention", q=(q, "... s d"), k=(k, "... s d"), v=(v, "... s d"))
    if not (q.shape[-2] and q.shape[-1]):
        raise ValueError(f"fused.attention: q has shape {q.shape}, but needs one position and one column at least")
    check_block("fused.attention", block)


@custom_vjp(nondiff_argnums=(3,))
@jax.named_scope("attention")
def attention(q: Array, k: Array, v: Array, block: Block) -> Array:
    """Causal attention: softmax(q kᵀ / √d) v, each query over the keys up to its own position.

    Args:
      q, k, v: Queries, keys and values (..., s, d).
      block: Positions that are taken at a time, 1 at least; more than s are s. "cudnn" for cuDNN's kernel, where q, k
        and v are (b, n_h, s, d) in bfloat16 or float16 on a GPU.

    Returns:
      (..., s, d), in q's dtype.

    Raises:
      ValueError: The shapes do not agree, or `block` is below 1.
      TypeError: A dtype is not floating, the dtypes differ, or `block` is neither an integer nor "cudnn".

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> ops.fused.attention(jnp.zeros((2, 1)), jnp.zeros((2, 1)), jnp.array([[2.0], [4.0]]), 1).tolist()
      [[2.0], [3.0]]
    """
    _check_args(q, k, v, block)
    return (_cudnn.attend(q, k, v) if block == KERNEL else _attend(q, k, v, block))[0]


@jax.named_scope("attention")
def _fwd(q: Array, k: Array, v: Array, block: Block) -> tuple[Array, Residuals | _cudnn.Pullback]:
    _check_args(q, k, v, block)
    if block == KERNEL:
        return _cudnn.attend(q, k, v)
    o, *statistics = _attend(q, k, v, block)
    return o, Residuals(q, k, v, o, *statistics)


@jax.named_scope("attention")
def _bwd(block: Block, kept: Any, do: Array) -> tuple[Array, Array, Array]:
    return kept(do) if block == KERNEL else _gradients(block, kept, do)


def _gradients(block: int, kept: Residuals, do: Array) -> tuple[Array, Array, Array]:
    """dq, dk and dv, one block of keys after another."""
    k, v, q = kept.k, kept.v, _scaled(depend_on(kept.q, do))
    column = jnp.sum(wide(do) * wide(kept.o), axis=-1, keepdims=True)  # do·o, a number for each query
    top, share, column = (jnp.swapaxes(part, -1, -2) for part in (kept.top, 1 / kept.total, column))
    s = q.shape[-2]
    dq: Any = None
    excess: Any = None  # r
    dk, dv = [], []
    for keys in reversed(blocks(s, block)):
        rest = slice(keys.start, s)  # the queries that see these keys
        q_rest, do_rest = (x[..., rest, :] for x in (q, do))
        if dk:
            done = first_entry(dq) + first_entry(dk[-1]) + first_entry(dv[-1])
            q_rest, do_rest = (depend_on(x, done) for x in (q_rest, do_rest))
        x = product("...jd,...id->...ji", k[..., keys, :], q_rest)
        p = jnp.exp(_open(x, rest, keys, transposed=True) - top[..., rest]) * share[..., rest]
        dp = product("...jd,...id->...ji", v[..., keys, :], do_rest)
        dx = (p * (dp - column[..., rest])).astype(k.dtype)
        dv.append(product("...ji,...id->...jd", p.astype(v.dtype), do_rest))
        dk.append(product("...ji,...id->...jd", dx, q_rest))
        part = product("...ji,...jd->...id", dx, k[..., keys, :])
        row_sums = product("...ji,...jd->...id", dx, jnp.ones_like(dx[..., :1]))
        dq = _above(part, s) if dq is None else _added(dq, part)
        excess = _above(row_sums, s) if excess is None else _added(excess, row_sums)
    dk, dv = (jnp.concatenate(parts[::-1], axis=-2) for parts in (dk, dv))
    dq = dq - excess * wide(_rows_at(k, kept.key))
    dk = _add_at(dk, kept.key, -excess * wide(q))
    return PrimalType.of(kept.q)(dq * q.shape[-1] ** -0.5), PrimalType.of(k)(dk), PrimalType.of(v)(dv)


attention.defvjp(_fwd, _bwd)

WHOLE = sympy.floor(s / m)  # blocks of m rows; what is left are s − m·WHOLE
AREA = m**2 * WHOLE * (WHOLE + 1) / 2 + (s - m * WHOLE) * s  # Σ over the blocks of queries: rows × prefix
HEADS = b * n_h
LATER = sympy.ceiling(s / m) - 1  # blocks that wait for another …
PREFIXES = m * WHOLE * (WHOLE + 1) / 2 + (LATER + 1 - WHOLE) * s - sympy.Min(m, s)  # … their keys, forward
RESTS = s * LATER - m * LATER * (LATER - 1) / 2  # … their queries, backward: those from a block's first position on

SPEC = OpSpec(
    op=attention,
    source="D2, Activation-to-Activation Multiplications; Softmax",
    arguments={"q": "b n_h s d", "k": "b n_h s d", "v": "b n_h s d"},
    statics={"block": m},
    # two products; a selection, the maximum and the sum with n − 1 a row, the shift; scaling and division; the mask
    forward=OpCost(
        HEADS * (4 * AREA * d + 4 * AREA - 2 * s + 2 * s * d + 2 * LATER + 2 * PREFIXES * d) + AREA, HEADS * AREA
    ),
    backward=OpCost(
        HEADS * (10 * AREA * d + 7 * AREA + 10 * s * d + s + 3 * RESTS * d + RESTS + 4 * LATER) + AREA,
        HEADS * AREA,
    ),
    fwd_extra=OpCost(HEADS * 3 * AREA),  # J: a comparison, a selection, the maximum with n − 1 a row; its conversion
    published_flops=HEADS * s**2 * (8 * d + 5),
    adjustments={
        "masked blocks skipped": HEADS * (AREA - s**2) * (8 * d + 5),
        "scores recomputed": HEADS * (AREA * (2 * d + 3) + 3 * s * d) + AREA,
        "scaling and row sums a column, not a score": HEADS * 3 * (s * d - AREA),
        "dq summed over the blocks": HEADS * RESTS * d,
        "rows of dx made to sum to 0": HEADS * (2 * AREA + RESTS + 4 * s * d + s),
        "blocks await each other": HEADS * (4 * LATER + 2 * RESTS * d),
    },
    residuals=HEADS * s * (4 * item * d + 2 * a + 4),
    special={
        "one block": Special(dims={"m": 9}),
        "blocks of one row": Special(dims={"m": 1}),
        "large scores": Special(values={"q": lambda q: 30 * q}),
    },
)
