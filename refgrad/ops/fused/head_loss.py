"""Head and cross-entropy as one, by chunks of positions: L = (1/n) Σ_r ℓ(x_r Eᵀ, t_r) over the n rows that count.

Derivation. `lm_head` gives dx = G E and dE = Gᵀ x with G = ∂L/∂logits, and `softmax_cross_entropy` gives row r of G as
(dL/n) times the slope of ℓ (`_rows_of_logits`: label smoothing and z-loss included), 0 where the row is ignored. The
loss is the last thing that a model computes: its cotangent dL is one number, by which everything is linear. So the
gradients are made for dL/n = 1 while the logits are at hand, a chunk of positions at a time, and scaled once dL is
known:

    forward, each chunk:   g = ∂ℓ/∂logits        dx̃ = g E        dẼ = Σ_chunks gᵀ x
    backward:              dx = (dL/n) dx̃        dE = (dL/n) dẼ

Kept: dx̃ and dẼ in the dtype of sums, and n. There are no logits beyond a chunk's: b·c rows of V. A chunk longer than
the sequence is the sequence; the last may be shorter. The value alone costs no gradient: only the rule makes one.
If every target is ignored, n is taken as 1: the loss is 0, and so are its gradients.
Cost: the backward pass has two scalings left; the gradient's products and slopes count in the rule's forward pass.
Source: D2, "Tensor Contractions", "Negative Log Likelihood Loss"; Liger-Kernel's fused linear cross-entropy (2024).
"""

from functools import reduce
from operator import add
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import sympy
from jax import Array

from refgrad._jax import custom_vjp
from refgrad.ops._numerics import Like, after, blocks, corner, lift, outer, product, rows
from refgrad.ops._row import Cost, Row, Special
from refgrad.ops.fused._rows_of_logits import (
    Rows,
    Terms,
    add_targets,
    check,
    flat,
    losses,
    number,
    slopes,
    sums,
    target_slopes,
)
from refgrad.ops.nll import pick
from refgrad.symbols import V, a, b, c, h, s


class Residuals(NamedTuple):
    """∂(nL)/∂x (..., s, h) and ∂(nL)/∂E (V, h) in the dtype of sums, n, and the types of x and E."""

    dx: Array
    dE: Array
    number: Array
    x: Like
    E: Like


def _chunk_loss(logits: Array, top: Array, total: Array, picked: Array, chunk: Rows, terms: Terms) -> Array:
    """Σ ℓ over the rows of a chunk that count."""
    mean = jnp.mean(logits, axis=-1) if terms.smoothing else None
    return jnp.sum(chunk.counts * losses(top, total, picked, mean, terms))


def _chunk(
    x: Array, E: Array, targets: Array, mask: Array, part: slice, before: Array | None
) -> tuple[Array, Array, Rows]:
    """The chunk's rows of x (r, h), their logits (r, V) in the dtype of sums, and their targets.

    It waits for the chunk before, of which `before` (lengths of one, but for the examples') is something.
    """
    x_part = x[..., part, :]
    x_rows = rows(x_part if before is None else after(before, x_part))
    return x_rows, product("rh,vh->rv", x_rows, E), flat(targets[..., part], mask[..., part], x)


@custom_vjp(nondiff_argnums=(4, 5, 6))
@jax.named_scope("head_loss")
def head_loss(
    x: Array, E: Array, targets: Array, mask: Array, chunk: int, smoothing: float = 0.0, z_loss: float = 0.0
) -> Array:
    """x (..., s, h), E (V, h), ids (..., s) in [0, V), mask (..., s) → the mean loss, a scalar.

    Where the mask is 0 or False the target is ignored, as by `targets != -100`, and its id may be any. Smoothing ε in
    [0, 1) and z-loss ζ ≥ 0 enter as `_rows_of_logits` says. The result is in float32 at least, NaN for an id outside
    [0, V) that counts. `chunk` ≥ 1 positions are taken at a time, all of them where it is larger than s.
    Raises ValueError or TypeError for arguments that do not agree, and ValueError for an empty batch.
    """
    terms = Terms(smoothing, z_loss)
    check("fused.head_loss", x, E, targets, mask, chunk, terms)
    loss = []
    for part in blocks(x.shape[-2], chunk):
        _, logits, found = _chunk(x, E, targets, mask, part, lift(loss[-1], x.ndim) if loss else None)
        loss.append(_chunk_loss(logits, *sums(logits), pick(logits, found.targets), found, terms))
    return reduce(add, loss) / number(mask, x)


@jax.named_scope("head_loss")
def _fwd(
    x: Array, E: Array, targets: Array, mask: Array, chunk: int, smoothing: float, z_loss: float
) -> tuple[Array, Residuals]:
    terms = Terms(smoothing, z_loss)
    check("fused.head_loss", x, E, targets, mask, chunk, terms)
    loss, dx, like_E = [], [], Like.of(E)
    dE: Any = None  # not a list: one array of its size is alive at a time
    for part in blocks(x.shape[-2], chunk):
        before = lift(corner(dE), x.ndim) + corner(dx[-1]) if dx else None
        x_rows, logits, found = _chunk(x, E, targets, mask, part, before)
        top, total = sums(logits)
        picked = pick(logits, found.targets)
        loss.append(_chunk_loss(logits, top, total, picked, found, terms))
        hot = lift(jax.lax.iota(found.targets.dtype, E.shape[0]), 2) == found.targets[:, None]
        g = slopes(logits, top, total, hot, found.counts, E.shape[0], terms).astype(x.dtype)
        slope = target_slopes(picked, top, total, found.counts, E.shape[0], terms)
        more = outer(g, x_rows, like_E.sharding)
        dE = dE + more if dx else more
        part_dx, dE = add_targets(product("rv,vh->rh", g, E), dE, x_rows, E, found.targets, slope)
        dx.append(part_dx.reshape(x[..., part, :].shape))
    n = number(mask, x)
    return reduce(add, loss) / n, Residuals(jnp.concatenate(dx, axis=-2), dE, n, Like.of(x), like_E)


@jax.named_scope("head_loss")
def _bwd(chunk: int, smoothing: float, z_loss: float, kept: Residuals, dL: Array) -> tuple[Array, Array, None, None]:
    scale = dL / kept.number
    return kept.x(kept.dx * scale), kept.E(kept.dE * scale), None, None


head_loss.defvjp(_fwd, _bwd)

CHUNKS = sympy.ceiling(s / c)
N = b * s
WAIT = CHUNKS - 1 + b * (s - sympy.Min(c, s)) * h  # for the chunk before

ROW = Row(
    op=head_loss,
    source="D2, Tensor Contractions (lm_head); Negative Log Likelihood Loss",
    arguments={"x": "b s h", "E": "V h", "targets": "b s < V", "mask": "b s < 2"},
    statics={"chunk": c},
    scale={"x": 1 / sympy.sqrt(h)},
    # the product; maximum and sum with n − 1 each, the shift; a row's mask, target, pick and sums; the mean
    forward=Cost(2 * N * h * V + 3 * N * V + 12 * N + WAIT, N * V + N),
    backward=Cost(N * h + V * h + 1),
    # the gradients' products and their sums; shift, factor, comparison, selection; the targets' part
    ahead=Cost(4 * N * h * V + (CHUNKS - 1) * (V * h + 2 * b - 1) + 4 * N * V + 5 * N * h + 9 * N, N * V + N),
    document=4 * N * h * V + 4 * N * V,
    causes={
        "gradient made in the forward": -4 * N * h * V - 4 * N * V,
        "scaling by dL / n": N * h + V * h + 1,
    },
    residuals=a * (N * h + V * h + 1),
    special={
        "every target ignored": Special(values={"mask": np.zeros_like}),
        "every target counts": Special(values={"mask": np.ones_like}),
        "one chunk": Special(dims={"c": 9}),
        "chunks of one position": Special(dims={"c": 1}),
    },
)
