"""Parts shared by both forms of the fused head: the loss of a row of logits, its slope, and the rows that count.

For one row of logits x (V,) with the target t, the loss is

    ℓ = L − (1−ε) x_t − (ε/V) Σ_v x_v + ζ L²,  L = log Σ_v e^(x_v)

with ε the label smoothing and ζ the z-loss, which holds L near 0. `∂L/∂x_v` is the softmax `p_v = e^(x_v − L)`, so that

    ∂ℓ/∂x_v = (1 + 2ζL) p_v − (1−ε) δ(v, t) − ε/V

A target's slope is nearly −1 where the others' are nearly 0: it is taken apart, in the dtype of sums, so that neither
the products of the small ones nor their sums are rounded at its size.

L is kept as its two parts, the maximum M and `S = Σ_v e^(x_v − M)`: their sum would round away the last digits of log
S. Source: D2, "Log-softmax Gradients"; label smoothing: Szegedy et al. (2016); z-loss: Chowdhery et al., PaLM (2022).
"""

import math
from collections.abc import Sequence
from functools import reduce
from numbers import Real
from operator import add
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from refgrad.numerics import PrimalType, wide, wide_dtype
from refgrad.ops._check import check_args, check_size
from refgrad.ops.token_embedding import token_embedding


class LossTerms(NamedTuple):
    """Terms beside cross-entropy in the loss: label smoothing ε in [0, 1) and z-loss ζ ≥ 0, 0 for neither."""

    smoothing: float
    z_loss: float


class Rows(NamedTuple):
    """The rows' ids (r,), 0 where ignored, and 1.0 for each row that counts, else 0.0 (r,)."""

    targets: Array
    counts: Array


class Sums(NamedTuple):
    """Sums over a row's logits: M and S (r,), and their mean where labels are smoothed, else None."""

    top: Array
    total: Array
    mean: Array | None


def check(op: str, x: Array, E: Array, targets: Array, mask: Array, chunk: int, terms: LossTerms) -> None:
    """Raise ValueError or TypeError, naming the value and the bound, for arguments that do not agree."""
    check_args(op, x=(x, "... s h"), E=(E, "V h"))
    check_args(op, targets=(targets, "... s < V"))
    for name, ids in (("targets", targets), ("mask", mask)):
        if jnp.shape(ids) != x.shape[:-1]:
            raise ValueError(f"{op}: {name} has shape {jnp.shape(ids)}, but x has rows {x.shape[:-1]}: give one a row")
    if not (jnp.issubdtype(mask.dtype, jnp.integer) or mask.dtype == bool):
        raise TypeError(f"{op}: mask is {mask.dtype}, but is 0 (ignored) or 1, or a truth: pass mask != 0")
    if not math.prod(x.shape):
        raise ValueError(f"{op}: x has shape {x.shape}, but a mean needs one row of one column at least")
    if not E.shape[0]:
        raise ValueError(f"{op}: E has shape {E.shape}, but a vocabulary has one id at least")
    check_size(op, "chunk", chunk, "what is alive of the logits")
    for name, value in terms._asdict().items():
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{op}: {name} is {value!r}, but must be a static number")
    if not 0 <= terms.smoothing < 1:
        raise ValueError(f"{op}: smoothing is {terms.smoothing}, but must be at least 0 and below 1")
    if not 0 <= terms.z_loss < math.inf:
        raise ValueError(f"{op}: z_loss is {terms.z_loss}, but must be at least 0 and finite")


def _counted(mask: Array) -> Array:
    """The mask as truths."""
    return mask if mask.dtype == bool else mask != 0


def flat(targets: Array, mask: Array, x: Array) -> Rows:
    """The rows of (..., s) ids, those where `mask` is 0 or false ignored; x gives the dtype of sums."""
    counted = _counted(mask).reshape(mask.size)
    return Rows(jnp.where(counted, targets.reshape(mask.size), 0), counted.astype(wide_dtype(x.dtype)))


def num_valid(mask: Array, x: Array) -> Array:
    """Number of rows that count, 1 at least, in the dtype of x's sums."""
    return jnp.maximum(jnp.sum(_counted(mask).astype(wide_dtype(x.dtype))), 1)


def sums(logits: Sequence[Array], terms: LossTerms) -> Sums:
    """Sums over rows whose logits come in parts (r, v); the maximum is a constant to the gradient."""
    top = jax.lax.stop_gradient(reduce(jnp.maximum, [jnp.max(part, axis=-1) for part in logits]))
    total = reduce(add, [jnp.sum(jnp.exp(part - top[:, None]), axis=-1) for part in logits])
    if not terms.smoothing:
        return Sums(top, total, None)
    V = sum(part.shape[-1] for part in logits)
    return Sums(top, total, reduce(add, [jnp.sum(part, axis=-1) for part in logits]) / V)


def losses(known: Sums, picked: Array, terms: LossTerms) -> Array:
    """ℓ of each row from its sums and its target's logit."""
    top, total, mean = known
    log = jnp.log(total)
    if mean is None:
        loss = log - (picked - top)
    else:
        loss = log - (1 - terms.smoothing) * (picked - top) - terms.smoothing * (mean - top)
    return loss + terms.z_loss * (top + log) ** 2 if terms.z_loss else loss


def factors(known: Sums, counts: Array, terms: LossTerms) -> Array:
    """Factors that turn each row's e^(x − M) into (1 + 2ζL) p, 0 in rows ignored."""
    factor = counts / known.total
    return factor * (1 + 2 * terms.z_loss * (known.top + jnp.log(known.total))) if terms.z_loss else factor


def slopes(x: Array, top: Array, factor: Array, hot: Array, counts: Array, V: int, terms: LossTerms) -> Array:
    """∂ℓ/∂x of some columns x (r, v) of V: 0 at the targets, which `hot` (r, v) marks, and in rows ignored."""
    slope = jnp.exp(x - top[:, None]) * factor[:, None]
    if terms.smoothing:
        slope = slope - (terms.smoothing / V * counts)[:, None]
    return jnp.where(hot, 0.0, slope)


def target_slopes(picked: Array, top: Array, factor: Array, counts: Array, V: int, terms: LossTerms) -> Array:
    """∂ℓ/∂x at the targets, whose logits are `picked` (r,); 0 in rows ignored."""
    share = (1 - terms.smoothing) + terms.smoothing / V
    return jnp.exp(picked - top) * factor - share * counts


def add_targets(dx: Array, dE: Array, x: Array, E: Array, targets: Array, slope: Array) -> tuple[Array, Array]:
    """dx (r, h) and dE (V, h) with the targets' part: slope_r E_t and, into row t, slope_r x_r."""
    at_target = wide(token_embedding.fun(E, targets))
    more = (slope[:, None] * wide(x)).astype(dE.dtype)
    sharding = PrimalType.of(dE).sharding
    dE = dE.at[targets].add(more, mode="drop", wrap_negative_indices=False, out_sharding=sharding)
    return dx + slope[:, None] * at_target, dE
