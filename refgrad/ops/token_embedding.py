"""Token embedding: `x_r = E[t_r]`, row `t_r` of the table for each of the `b·s` tokens.

Derivation. `E_vh` reaches the loss through every place r where token v stands, and nowhere else, so with δ the
Kronecker delta `dE_vh = Σ_r δ(t_r, v) dx_rh`. Written as additions into zeros, over the whole batch:

    row v of dE = Σ_{r : t_r = v} row r of dx

Kept: the ids and the type of E; ids get no gradient. An id outside [0, V) reads NaN, never another token's row. Cost:
the document calls it `O(h)` additions; the least possible is (bs − number of different tokens)·h, and an addition into
zeros, which XLA's scatter counts, is one for each element, bsh. Source: D2, "Token Embeddings", "Batched sequences".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, wide_dtype
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec, Special
from refgrad.symbols import b, h, s


class Residuals(NamedTuple):
    """The ids (...) and the type of E (V, h)."""

    tokens: Array
    E: PrimalType


@custom_vjp
@jax.named_scope("token_embedding")
def token_embedding(E: Array, tokens: Array) -> Array:
    """Return the rows of E at the ids.

    Args:
      E: The token embedding (V, h).
      tokens: Integer ids (...) in [0, V).

    Returns:
      (..., h), NaN for an id outside [0, V).

    Raises:
      ValueError: `E` is not a matrix.
      TypeError: `tokens` is not integer, or `E` not floating.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> ops.token_embedding(jnp.array([[1.0], [2.0]]), jnp.array([1, 0])).tolist()
      [[2.0], [1.0]]
    """
    check_args("token_embedding", E=(E, "V h"), tokens=(tokens, "... < V"))
    return E.at[tokens].get(
        mode="fill", fill_value=jnp.nan, wrap_negative_indices=False, out_sharding=rows_sharding(E, tokens)
    )


def rows_sharding(E: Array, tokens: Array) -> jax.sharding.NamedSharding | None:
    """The explicit sharding of E[tokens]: the ids' axes, then E's last; None where no mesh has explicit axes."""
    ids, table = PrimalType.of(tokens).sharding, PrimalType.of(E).sharding
    if ids is None or table is None:
        return None
    return jax.sharding.NamedSharding(ids.mesh, jax.sharding.PartitionSpec(*ids.spec, table.spec[-1]))


@jax.named_scope("token_embedding")
def _fwd(E: Array, tokens: Array) -> tuple[Array, Residuals]:
    return token_embedding.fun(E, tokens), Residuals(tokens, PrimalType.of(E))


@jax.named_scope("token_embedding")
def _bwd(kept: Residuals, dx: Array) -> tuple[Array, None]:
    zeros = jnp.zeros(kept.E.shape, wide_dtype(dx.dtype), out_sharding=kept.E.sharding)
    dE = zeros.at[kept.tokens].add(
        dx.astype(zeros.dtype), mode="drop", wrap_negative_indices=False, out_sharding=kept.E.sharding
    )
    return kept.E(dE), None


token_embedding.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=token_embedding,
    source="D2, Token Embeddings",
    arguments={"E": "V h", "tokens": "b s < V"},
    # a selection an element, and three operations an index: is it in [0, V)?
    forward=OpCost(b * s * h + 3 * b * s),
    backward=OpCost(b * s * h),
    adjustments={"addition into zeros": b * s * h},
    residuals=4 * b * s,
    special={"one token throughout": Special(values={"tokens": np.zeros_like})},
)
