"""Position embedding: `y = x + P[0 … s−1]`, the same rows for every example of the batch.

Derivation. The addition hands dy to x. Row j of P is broadcast to the b examples, so it gets their sum; rows that the
sequence does not reach get zero:

    dx = dy        dP_jh = Σ_b dy_bjh for j < s, 0 for j ≥ s

Kept: types alone. Cost: `(b − 1)·s·h` additions, as in the document. Source: D2, "Position Embeddings", "Batched
sequences".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, lift, wide
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec, Special
from refgrad.symbols import b, h, s


class Residuals(NamedTuple):
    """The types of x (..., s, h) and P (n_positions, h)."""

    x: PrimalType
    P: PrimalType


@custom_vjp
@jax.named_scope("position_embedding")
def position_embedding(x: Array, P: Array) -> Array:
    """Return x with row t of P added to position t.

    Args:
      x: (..., s, h).
      P: The position embedding (n_positions, h), s ≤ n_positions.

    Returns:
      (..., s, h), in x's dtype.

    Raises:
      ValueError: The shapes do not agree, or the sequence is longer than P.
      TypeError: A dtype is not floating, or the dtypes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> ops.position_embedding(jnp.zeros((1, 2)), jnp.array([[1.0, 2.0], [3.0, 4.0]])).tolist()
      [[1.0, 2.0]]
    """
    check_args("position_embedding", x=(x, "... s h"), P=(P, "n_positions h"))
    s, rows = x.shape[-2], P.shape[0]
    if s > rows:
        raise ValueError(f"position_embedding: x has {s} positions, but P has {rows} rows: shorten x or enlarge P")
    return (wide(x) + lift(wide(P[:s]), x.ndim)).astype(x.dtype)


@jax.named_scope("position_embedding")
def _fwd(x: Array, P: Array) -> tuple[Array, Residuals]:
    return position_embedding.fun(x, P), Residuals(PrimalType.of(x), PrimalType.of(P))


@jax.named_scope("position_embedding")
def _bwd(kept: Residuals, dy: Array) -> tuple[Array, Array]:
    examples = tuple(range(dy.ndim - 2))
    dP = jnp.sum(wide(dy), axis=examples)
    unreached = kept.P.shape[0] - dP.shape[0]
    dP = jax.lax.pad(dP, jnp.zeros((), dP.dtype), ((0, unreached, 0), (0, 0, 0)))
    return kept.x(dy), kept.P(dP)


position_embedding.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=position_embedding,
    source="D2, Position Embeddings",
    arguments={"x": "b s h", "P": "s h"},
    forward=OpCost(b * s * h),
    backward=OpCost((b - 1) * s * h),
    published_flops=(b - 1) * s * h,
    residuals=0,
    special={"more rows than positions": Special(values={"x": lambda x: x[:, :1]})},
)
