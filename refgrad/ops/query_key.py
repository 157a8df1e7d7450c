"""Attention scores: `x = q kᵀ` for each head and example.

Forward. `x_ij = Σ_d q_id k_jd`, i and j positions of one head of one example.

Derivation. A product of two activations: no weight is shared, so each head's gradients stand alone and nothing is
summed over the batch. `q_id` reaches the loss through row i of x, `k_jd` through column j:

    dq_id = Σ_j dx_ij k_jd        dk_jd = Σ_i dx_ij q_id

Kept: q and k. Cost: two products, `2·b·n_h·s²·d` each, as in the document; the causal half is not skipped. Source: D2,
"Activation-to-Activation Multiplications", query@key.
"""

from typing import NamedTuple

import jax
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, product
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec
from refgrad.symbols import b, d, item, n_h, s


class Residuals(NamedTuple):
    """q and k (..., s, d)."""

    q: Array
    k: Array


@custom_vjp
@jax.named_scope("query_key")
def query_key(q: Array, k: Array) -> Array:
    """Return q kᵀ: a score for each query and key.

    Args:
      q, k: Queries and keys (..., s, d).

    Returns:
      Scores (..., s, s).

    Raises:
      ValueError: The shapes do not agree.
      TypeError: A dtype is not floating, or the dtypes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> ops.query_key(jnp.array([[1.0], [2.0]]), jnp.array([[3.0], [4.0]])).tolist()
      [[3.0, 4.0], [6.0, 8.0]]
    """
    check_args("query_key", q=(q, "... s d"), k=(k, "... s d"))
    return product("...id,...jd->...ij", q, k).astype(q.dtype)


@jax.named_scope("query_key")
def _fwd(q: Array, k: Array) -> tuple[Array, Residuals]:
    return query_key.fun(q, k), Residuals(q, k)


@jax.named_scope("query_key")
def _bwd(kept: Residuals, dx: Array) -> tuple[Array, Array]:
    like_q, like_k = PrimalType.of(kept.q), PrimalType.of(kept.k)
    dq = product("...ij,...jd->...id", dx, kept.k, like_q.sharding)
    dk = product("...ij,...id->...jd", dx, kept.q, like_k.sharding)
    return like_q(dq), like_k(dk)


query_key.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=query_key,
    source="D2, Activation-to-Activation Multiplications",
    arguments={"q": "b n_h s d", "k": "b n_h s d"},
    forward=OpCost(2 * b * n_h * s**2 * d),
    backward=OpCost(4 * b * n_h * s**2 * d),
    published_flops=4 * b * n_h * s**2 * d,
    residuals=item * 2 * b * n_h * s * d,
)
