"""Head and cross-entropy as one, by chunks of the vocabulary: `L = (1/n) Σ_r ℓ(x_r Eᵀ, t_r)`, n rows that count.

Derivation. Loss and gradients are those of `head_loss`; what differs is which part of the logits is alive. A row's L
needs all of its logits, so that there are two passes over E, c of its rows at a time. The first gathers each chunk's
`M_k` and `S_k`, and the target's logit as `x_r · E_t`; with `M = max_k M_k` they add up to `S = Σ_k S_k e^(M_k − M)`.
The second makes the chunk's logits again and with them its share of the gradients, for `dL/n = 1` as there:

    g = ∂ℓ/∂logits of the chunk        dx̃ = Σ_chunks g E_chunk        dẼ_chunk = gᵀ x
    backward:        dx = (dL/n) dx̃        dE = (dL/n) dẼ

dE's rows are written once and not summed, and `b·s` rows of c logits alone are alive, at the price of 2bshV FLOPs more.

Kept: dx̃ and dẼ in the dtype of sums, and n. A chunk longer than the vocabulary is the vocabulary; V need be no
multiple of it: the last chunk is shorter and comes first, and the rest are walked by a loop, in which a compiler cannot
take the first pass's logits for the second's. If every target is ignored the loss is 0, and so are its gradients. Cost:
that of `head_loss` in the backward pass; the logits made again count in the rule's forward pass. Source: as
`head_loss`; Wijmans et al., Cut Your Losses (2024)."""

import jax
import jax.numpy as jnp
import numpy as np
import sympy
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, lift, product, rows, weight_grad, wide
from refgrad.ops._spec import OpCost, OpSpec
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
from refgrad.ops.fused.head_loss import SPEC as BY_POSITIONS
from refgrad.ops.fused.head_loss import Residuals
from refgrad.ops.fused.head_loss import head_loss as by_positions
from refgrad.ops.token_embedding import token_embedding
from refgrad.symbols import V, b, c, h, s


def _starts(V: int, chunk: int) -> tuple[Array, int]:
    """First rows of the whole chunks, and the first of the last chunk, which has 1 … `chunk` rows."""
    last = (V - 1) // chunk * chunk
    return jnp.asarray(np.arange(0, last, chunk, dtype=np.int32)), last


def _rows_from(E: Array, start: Array, chunk: int) -> Array:
    """`chunk` rows of E (V, h) from a traced `start`, which lies inside."""
    return jax.lax.dynamic_slice(E, (start, np.int32(0)), (chunk, E.shape[1]), allow_negative_indices=False)


def _row_sums(x: Array, E: Array, chunk: int, terms: LossTerms) -> Sums:
    """Sums over each row's logits: the first pass."""

    def of(part: Array) -> tuple[Array, ...]:
        found = sums([product("rh,vh->rv", x, part)], terms)
        return (found.top, found.total, *([found.mean * part.shape[0]] if found.mean is not None else []))

    starts, last = _starts(E.shape[0], chunk)
    found = tuple(part[None] for part in of(E[last:]))  # (chunks, r) each
    if starts.size:
        _, more = jax.lax.scan(lambda _, start: (None, of(_rows_from(E, start, chunk))), None, starts)
        found = tuple(jnp.concatenate(parts) for parts in zip(more, found, strict=True))
    tops, totals, *whole = found
    top = jnp.max(tops, axis=0)
    total = jnp.sum(totals * jnp.exp(tops - lift(top, 2)), axis=0)
    return Sums(top, total, jnp.sum(whole[0], axis=0) / E.shape[0] if whole else None)


def _pick(x: Array, E: Array, targets: Array) -> Array:
    """The targets' logits (r,), NaN for an id outside [0, V)."""
    return jnp.sum(wide(x) * wide(token_embedding.fun(E, targets)), axis=-1)


def _gradients(
    x: Array, E: Array, found: Rows, top: Array, factor: Array, chunk: int, terms: LossTerms
) -> tuple[Array, Array]:
    """∂(nL)/∂x (r, h) and ∂(nL)/∂E (V, h) but for the targets' part, in the dtype of sums: the second pass."""
    V, sharding = E.shape[0], PrimalType.of(E).sharding

    def of(part: Array, start: Array | int) -> tuple[Array, Array]:
        logits = product("rh,vh->rv", x, part)
        hot = lift(jax.lax.iota("int32", part.shape[0]), 2) == (found.targets.astype("int32") - start)[:, None]
        g = slopes(logits, top, factor, hot, found.counts, V, terms).astype(x.dtype)
        return product("rv,vh->rh", g, part), weight_grad(g, x, sharding)

    def step(carry: tuple[Array, Array], start: Array) -> tuple[tuple[Array, Array], None]:
        dx, dE = carry
        more, rows_of_dE = of(_rows_from(E, start, chunk), start)
        dE = jax.lax.dynamic_update_slice(dE, rows_of_dE, (start, np.int32(0)), allow_negative_indices=False)
        return (dx + more, dE), None

    starts, last = _starts(V, chunk)
    dx, rows_of_dE = of(E[last:], last)
    dE = jax.lax.pad(rows_of_dE, jnp.zeros((), rows_of_dE.dtype), ((last, 0, 0), (0, 0, 0)))
    if starts.size:
        (dx, dE), _ = jax.lax.scan(step, (dx, dE), starts)
    return dx, dE


@custom_vjp(nondiff_argnums=(4, 5, 6))
@jax.named_scope("head_loss_by_vocabulary")
def head_loss_by_vocabulary(
    x: Array, E: Array, targets: Array, mask: Array, chunk: int, smoothing: float = 0.0, z_loss: float = 0.0
) -> Array:
    """Return the mean cross-entropy of the logits x Eᵀ, taken by rows of E.

    Args:
      x: (..., s, h).
      E: The token embedding (V, h).
      targets: Integer ids (..., s) in [0, V).
      mask: (..., s). Where it is 0 or False the target is ignored, and its id may be any.
      chunk: Rows of E that are taken at a time, 1 at least; more than V are V.
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
      >>> f"{ops.fused.head_loss_by_vocabulary(x, E, targets, mask, 1):.3f}"
      '0.693'
    """
    terms = LossTerms(smoothing, z_loss)
    check("fused.head_loss_by_vocabulary", x, E, targets, mask, chunk, terms)
    found, x_rows = flat(targets, mask, x), rows(x)
    loss = losses(_row_sums(x_rows, E, chunk, terms), _pick(x_rows, E, found.targets), terms)
    return jnp.sum(found.counts * loss) / num_valid(mask, x)


@jax.named_scope("head_loss_by_vocabulary")
def _fwd(
    x: Array, E: Array, targets: Array, mask: Array, chunk: int, smoothing: float, z_loss: float
) -> tuple[Array, Residuals]:
    terms = LossTerms(smoothing, z_loss)
    check("fused.head_loss_by_vocabulary", x, E, targets, mask, chunk, terms)
    found, x_rows, n = flat(targets, mask, x), rows(x), num_valid(mask, x)
    known = _row_sums(x_rows, E, chunk, terms)
    picked = _pick(x_rows, E, found.targets)
    loss = jnp.sum(found.counts * losses(known, picked, terms))
    factor = factors(known, found.counts, terms)
    dx, dE = _gradients(x_rows, E, found, known.top, factor, chunk, terms)
    slope = target_slopes(picked, known.top, factor, found.counts, E.shape[0], terms)
    dx, dE = add_targets(dx, dE, x_rows, E, found.targets, slope)
    return loss / n, Residuals(dx.reshape(x.shape), dE, n, PrimalType.of(x), PrimalType.of(E))


@jax.named_scope("head_loss_by_vocabulary")
def _bwd(chunk: int, smoothing: float, z_loss: float, kept: Residuals, dL: Array) -> tuple[Array, Array, None, None]:
    return by_positions.bwd(chunk, None, smoothing, z_loss, kept, dL)


head_loss_by_vocabulary.defvjp(_fwd, _bwd)

N = b * s
CHUNKS = sympy.ceiling(V / c)

SPEC = OpSpec(
    op=head_loss_by_vocabulary,
    source=BY_POSITIONS.source,
    arguments=BY_POSITIONS.arguments,
    statics={"chunk": c},
    scale=BY_POSITIONS.scale,
    # as by positions, but for the chunks' sums being put together and the target's logit, a product of its own
    forward=OpCost(2 * N * h * V + 3 * N * V + 2 * N * CHUNKS + 3 * N * h + 10 * N, N * V + N * CHUNKS + N),
    backward=BY_POSITIONS.backward,
    # the logits again; as by positions, but for dx's sums and the targets' places chunk by chunk
    fwd_extra=OpCost(6 * N * h * V + (CHUNKS - 1) * N * h + 4 * N * V + N * CHUNKS + 5 * N * h + 8 * N, N * V + N),
    published_flops=BY_POSITIONS.published_flops,
    adjustments=BY_POSITIONS.adjustments,
    residuals=BY_POSITIONS.residuals,
    special=BY_POSITIONS.special,
)
