"""Attention output: `y = p v` for each head and example.

Forward. `y_id = Σ_j p_ij v_jd`, p the attention probabilities of one head of one example.

Derivation. As in `query_key`, each head stands alone. `p_ij` meets every column of row j of v, `v_jd` every row i:

    dp_ij = Σ_d dy_id v_jd        dv_jd = Σ_i p_ij dy_id

Kept: p and v. Cost: two products, `2·b·n_h·s²·d` each, as in the document; the causal half is not skipped. Source: D2,
"Activation-to-Activation Multiplications", attn@value.
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
    """p (..., s, s) and v (..., s, d)."""

    p: Array
    v: Array


@custom_vjp
@jax.named_scope("attn_value")
def attn_value(p: Array, v: Array) -> Array:
    """Return p v, each query's mean of the values.

    Args:
      p: Probabilities (..., s, s), queries × keys.
      v: Values (..., s, d).

    Returns:
      The attended values (..., s, d).

    Raises:
      ValueError: The shapes do not agree.
      TypeError: A dtype is not floating, or the dtypes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> ops.attn_value(jnp.array([[1.0, 0.0], [0.5, 0.5]]), jnp.array([[2.0], [4.0]])).tolist()
      [[2.0], [3.0]]
    """
    check_args("attn_value", v=(v, "... s d"), p=(p, "... s s"))
    return product("...ij,...jd->...id", p, v).astype(v.dtype)


@jax.named_scope("attn_value")
def _fwd(p: Array, v: Array) -> tuple[Array, Residuals]:
    return attn_value.fun(p, v), Residuals(p, v)


@jax.named_scope("attn_value")
def _bwd(kept: Residuals, dy: Array) -> tuple[Array, Array]:
    like_p, like_v = PrimalType.of(kept.p), PrimalType.of(kept.v)
    dp = product("...id,...jd->...ij", dy, kept.v, like_p.sharding)
    dv = product("...ij,...id->...jd", kept.p, dy, like_v.sharding)
    return like_p(dp), like_v(dv)


attn_value.defvjp(_fwd, _bwd)

SPEC = OpSpec(
    op=attn_value,
    source="D2, Activation-to-Activation Multiplications",
    arguments={"p": "b n_h s s", "v": "b n_h s d"},
    forward=OpCost(2 * b * n_h * s**2 * d),
    backward=OpCost(4 * b * n_h * s**2 * d),
    published_flops=4 * b * n_h * s**2 * d,
    residuals=item * (b * n_h * s**2 + b * n_h * s * d),
)
