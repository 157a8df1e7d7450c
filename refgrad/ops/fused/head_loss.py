"""Head and cross-entropy as one, by chunks of positions: `L = (1/n) Σ_r ℓ(x_r Eᵀ, t_r)` over the n rows that count.

Derivation. `lm_head` gives `dx = G E` and `dE = Gᵀ x` with `G = ∂L/∂logits`, and `softmax_cross_entropy` gives row r of
G as `(dL/n)` times the slope of ℓ (`_xent_rows`: label smoothing and z-loss included), 0 where the row is ignored. The
loss is the last thing that a model computes: its cotangent dL is one number, by which everything is linear. So the
gradients are made for `dL/n = 1` while the logits are at hand, a chunk of positions at a time, and scaled once dL is
known:

    forward, each chunk:   g = ∂ℓ/∂logits        dx̃ = g E        dẼ = Σ_chunks gᵀ x
    backward:              dx = (dL/n) dx̃        dE = (dL/n) dẼ

A chunk's logits are made and used v columns at a time, x and g against v rows of E: products that stay in a
processor's cache run faster than one that passes through memory. All of a chunk's columns are alive until its sums are
known, from which its slopes follow; dẼ is filled v rows at a time.

Kept: dx̃ and dẼ in the dtype of sums, and n. Logits exist for one chunk only: `b·c` rows of V. A chunk longer than the
sequence is the sequence; the last may be shorter, as may the last columns. The value alone costs no gradient: only the
rule makes one. If every target is ignored, n is taken as 1: the loss is 0, and so are its gradients. Cost: the backward
pass has two scalings left; the gradient's products and slopes count in the rule's forward pass. Source: D2, "Tensor
Contractions", "Negative Log Likelihood Loss"; Liger-Kernel's fused linear cross-entropy (2024).
"""

from functools import reduce
from operator import add
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import sympy
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, blocks, depend_on, first_entry, lift, product, rows, weight_grad
from refgrad.ops._check import check_size
from refgrad.ops._spec import OpCost, OpSpec, Special
from refgrad.ops.fused._xent_rows import (
    LossTerms,
    Rows,
    Sums,
    add_targets,
    check,
    factors,
    flat,
    losses,
    num_valid,
    slopes,
    sums,
    target_slopes,
)
from refgrad.ops.nll import pick
from refgrad.symbols import V, a, b, c, h, s, v


class Residuals(NamedTuple):
    """∂(nL)/∂x (..., s, h) and ∂(nL)/∂E (V, h) in the dtype of sums, n, and the types of x and E."""

    dx: Array
    dE: Array
    num_valid: Array
    x: PrimalType
    E: PrimalType


def _chunk_loss(known: Sums, picked: Array, chunk: Rows, terms: LossTerms) -> Array:
    """Σ ℓ over the rows of a chunk that count."""
    return jnp.sum(chunk.counts * losses(known, picked, terms))


def _chunk(
    x: Array, E: Array, targets: Array, mask: Array, part: slice, columns: list[slice], before: Array | None
) -> tuple[Array, list[Array], Rows]:
    """The chunk's rows of x (r, h), their logits (r, v) of each of the `columns` in the dtype of sums, their targets.

    It waits for the chunk before, of which `before` (lengths of one, but for the examples') is something.
    """
    x_part = x[..., part, :]
    x_rows = rows(x_part if before is None else depend_on(x_part, before))
    logits = [product("rh,vh->rv", x_rows, E[some]) for some in columns]
    return x_rows, logits, flat(targets[..., part], mask[..., part], x)


def _places(targets: Array, columns: list[slice]) -> list[Array]:
    """The targets (r,) counted from the first of each of the `columns`."""
    return [targets - some.start if some.start else targets for some in columns]


def _pick(logits: list[Array], places: list[Array]) -> Array:
    """The targets' logits (r,), NaN for an id outside [0, V)."""
    picked = pick(logits[0], places[0])
    for part, place in zip(logits[1:], places[1:], strict=True):
        picked = jnp.where(place >= 0, pick(part, place), picked)
    return picked


@custom_vjp(nondiff_argnums=(4, 5, 6, 7))
@jax.named_scope("head_loss")
def head_loss(
    x: Array,
    E: Array,
    targets: Array,
    mask: Array,
    chunk: int,
    columns: int | None = None,
    smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> Array:
    """Return the mean cross-entropy of the logits x Eᵀ, of which few exist at a time.

    Args:
      x: (..., s, h).
      E: The token embedding (V, h).
      targets: Integer ids (..., s) in [0, V).
      mask: (..., s). Where it is 0 or False the target is ignored, and its id may be any.
      chunk: Positions that are taken at a time, 1 at least; more than s are s.
      columns: Their logits that are taken at a time; None for all V.
      smoothing: Label smoothing ε in [0, 1), 0 for none.
      z_loss: The weight ζ ≥ 0 of the squared log-sum-exp.

    Returns:
      The loss, a scalar in float32 at least; NaN for an id outside [0, V) that counts.

    Raises:
      ValueError: The shapes do not agree, a number is out of range, or the batch is empty.
      TypeError: A dtype does not fit, or `chunk` is not an integer.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> x, E, targets, mask = jnp.ones((1, 2)), jnp.zeros((2, 2)), jnp.array([0]), jnp.array([1])
      >>> f"{ops.fused.head_loss(x, E, targets, mask, 1):.3f}"
      '0.693'
    """
    terms = LossTerms(smoothing, z_loss)
    cut = _check(x, E, targets, mask, chunk, columns, terms)
    loss = []
    for part in blocks(x.shape[-2], chunk):
        before = lift(loss[-1], x.ndim) if loss else None
        _, logits, found = _chunk(x, E, targets, mask, part, cut, before)
        loss.append(_chunk_loss(sums(logits, terms), _pick(logits, _places(found.targets, cut)), found, terms))
    return reduce(add, loss) / num_valid(mask, x)


def _check(
    x: Array, E: Array, targets: Array, mask: Array, chunk: int, columns: int | None, terms: LossTerms
) -> list[slice]:
    """The columns of logits that are taken at a time; raises as `head_loss` says."""
    check("fused.head_loss", x, E, targets, mask, chunk, terms)
    columns = E.shape[0] if columns is None else columns
    check_size("fused.head_loss", "columns", columns, "what is made of the logits at a time")
    return blocks(E.shape[0], columns)


@jax.named_scope("head_loss")
def _fwd(
    x: Array,
    E: Array,
    targets: Array,
    mask: Array,
    chunk: int,
    columns: int | None,
    smoothing: float,
    z_loss: float,
) -> tuple[Array, Residuals]:
    terms, E_type, V = LossTerms(smoothing, z_loss), PrimalType.of(E), E.shape[0]
    cut = _check(x, E, targets, mask, chunk, columns, terms)
    loss, dx = [], []
    dE: Any = None  # not a list: one array of its size is alive at a time
    for part in blocks(x.shape[-2], chunk):
        before = lift(first_entry(dE), x.ndim) + first_entry(dx[-1]) if dx else None
        x_rows, logits, found = _chunk(x, E, targets, mask, part, cut, before)
        known, places = sums(logits, terms), _places(found.targets, cut)
        picked = _pick(logits, places)
        loss.append(_chunk_loss(known, picked, found, terms))
        factor = factors(known, found.counts, terms)
        more_dx = []
        for some, part_of_logits, place in zip(cut, logits, places, strict=True):
            hot = lift(jax.lax.iota(place.dtype, some.stop - some.start), 2) == place[:, None]
            g = slopes(part_of_logits, known.top, factor, hot, found.counts, V, terms).astype(x.dtype)
            more_dx.append(product("rv,vh->rh", g, E[some]))
            dE = _add_rows(dE, weight_grad(g, x_rows, E_type.sharding), some, V, new=not dx)
        slope = target_slopes(picked, known.top, factor, found.counts, V, terms)
        part_dx, dE = add_targets(reduce(add, more_dx), dE, x_rows, E, found.targets, slope)
        dx.append(part_dx.reshape(x[..., part, :].shape))
    n = num_valid(mask, x)
    return reduce(add, loss) / n, Residuals(jnp.concatenate(dx, axis=-2), dE, n, PrimalType.of(x), E_type)


def _add_rows(dE: Any, more: Array, some: slice, V: int, new: bool) -> Array:
    """dE (V, h) with `more` (v, h) added to `some` of its rows; where they are `new`, nothing stands there yet."""
    if more.shape[0] == V:
        return more if new else dE + more
    if dE is None:
        dE = jnp.zeros_like(more, shape=(V, more.shape[1]))
    more = more if new else dE[some] + more
    return jax.lax.dynamic_update_slice_in_dim(dE, more, some.start, 0)


@jax.named_scope("head_loss")
def _bwd(
    chunk: int, columns: int | None, smoothing: float, z_loss: float, kept: Residuals, dL: Array
) -> tuple[Array, Array, None, None]:
    scale = dL / kept.num_valid
    return kept.x(kept.dx * scale), kept.E(kept.dE * scale), None, None


head_loss.defvjp(_fwd, _bwd)

CHUNKS = sympy.ceiling(s / c)
MORE = sympy.ceiling(V / v) - 1  # columns after the first
N = b * s
WAIT = CHUNKS - 1 + b * (s - sympy.Min(c, s)) * h  # for the chunk before

SPEC = OpSpec(
    op=head_loss,
    source="D2, Tensor Contractions (lm_head); Negative Log Likelihood Loss",
    arguments={"x": "b s h", "E": "V h", "targets": "b s < V", "mask": "b s < 2"},
    statics={"chunk": c, "columns": v},
    scale={"x": 1 / sympy.sqrt(h)},
    # the product; maximum and sum with n − 1 each, the shift; a row's mask, target, pick (and whether it is among these
    # columns) and sums; the mean
    forward=OpCost(2 * N * h * V + 3 * N * V + 12 * N + 7 * N * MORE + WAIT, N * V + N),
    backward=OpCost(N * h + V * h + 1),
    # the gradients' products and their sums; shift, factor, comparison, selection; the targets' part
    fwd_extra=OpCost(
        4 * N * h * V + (CHUNKS - 1) * (V * h + 2 * b - 1) + MORE * N * h + 4 * N * V + 5 * N * h + 8 * N,
        N * V + N,
    ),
    published_flops=4 * N * h * V + 4 * N * V,
    adjustments={
        "gradient made in the forward": -4 * N * h * V - 4 * N * V,
        "scaling by dL / n": N * h + V * h + 1,
    },
    residuals=a * (N * h + V * h + 1),
    special={
        "every target ignored": Special(values={"mask": np.zeros_like}),
        "every target counts": Special(values={"mask": np.ones_like}),
        "one chunk": Special(dims={"c": 9}),
        "chunks of one position": Special(dims={"c": 1}),
        "all columns at once": Special(dims={"v": 12}),
        "columns one at a time": Special(dims={"v": 1}),
    },
)
