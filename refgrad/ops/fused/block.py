"""A whole layer as one rule: `x₁ = x + attention(norm(x))`, `y = x₁ + mlp(norm(x₁))`.

Forward. `n₁ = layer_norm(x)`, `(q | k | v) = n₁ w_qkv + b_qkv` split into `n_h` heads, o = the merged heads of causal
attention, `x₁ = x + o w_out + b_out`, `n₂ = layer_norm(x₁)`, `u = n₂ w_fc + b_fc`, `y = x₁ + GELU(u) w_proj + b_proj`.

Derivation. A chain of the rules of `layer_norm`, `linear`, `attention` and `mlp`, from the output to the input. The
stream forks twice, and where two gradients of one value meet they are added:

    dn₂, dw_fc, db_fc, dw_proj, db_proj = mlp's of dy        dx₁ = dy + layer_norm's of dn₂
    do, dw_out, db_out = linear's of dx₁ at o        dq, dk, dv = attention's of do
    dn₁, dw_qkv, db_qkv = linear's of (dq | dk | dv) at n₁        dx = dx₁ + layer_norm's of dn₁

n₁ and n₂ are asked for by the weights' gradients alone, and are four operations an element away from x and x₁ and what
the norms keep: they are made again, once a cotangent exists (see `depend_on`). So is o's form by heads. With
`recompute` nothing is kept but x, and the forward pass runs once more.

Kept: x, q, k, v, o, x₁ and u, 10bsh elements, the norms' μ and m, attention's M, S and J, and the parameters.
Cost: that of the parts, both norms' output again, the two sums where gradients meet.
Source: D2, "Model Architecture Overview", "Final Tally"; recomputation: Chen et al. (2016).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import sympy
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.numerics import PrimalType, depend_on
from refgrad.ops._check import check_args
from refgrad.ops._spec import OpCost, OpSpec, Special, summed
from refgrad.ops.fused.attention import SPEC as ATTENTION
from refgrad.ops.fused.attention import Block, attention, check_block
from refgrad.ops.fused.attention import Residuals as Attention
from refgrad.ops.fused.layer_norm import SPEC as LAYER_NORM
from refgrad.ops.fused.layer_norm import Residuals as Norm
from refgrad.ops.fused.layer_norm import layer_norm, normalise
from refgrad.ops.fused.linear import SPEC as LINEAR
from refgrad.ops.fused.linear import Residuals as Linear
from refgrad.ops.fused.linear import linear
from refgrad.ops.fused.mlp import SPEC as MLP
from refgrad.ops.fused.mlp import Residuals as Mlp
from refgrad.ops.fused.mlp import mlp
from refgrad.ops.layer_norm import affine
from refgrad.ops.multi_head_attention import merge_heads, split_heads
from refgrad.ops.residual import residual
from refgrad.symbols import a, b, h, i, item, m, n_h, o, s


class Params(NamedTuple):
    """A layer's parameters, in the order of the forward pass."""

    gamma_1: Array
    beta_1: Array
    w_qkv: Array
    b_qkv: Array
    w_out: Array
    b_out: Array
    gamma_2: Array
    beta_2: Array
    w_fc: Array
    b_fc: Array
    w_proj: Array
    b_proj: Array


class Residuals(NamedTuple):
    """x, x₁, o (..., s, h), u (..., s, 4h), the norms' μ and m (..., s, 1), and what attention keeps, but o."""

    x: Array
    mean_1: Array
    m_1: Array
    attended: Any
    o: Array
    x_1: Array
    mean_2: Array
    m_2: Array
    u: Array


def _normed(cotangent: Array, norm: Norm, beta: Array) -> Array:
    """A norm's output, made again once the cotangent exists."""
    x_hat = normalise(depend_on(norm.x, cotangent), norm.mean, norm.m)
    return affine(x_hat, norm.gamma, beta).astype(norm.x.dtype)


def _heads(qkv: Array, n_head: int) -> tuple[Array, ...]:
    """q, k, v (..., n_h, s, d) of q | k | v (..., s, 3h)."""
    return tuple(split_heads(part, n_head) for part in jnp.split(qkv, 3, axis=-1))


def _run(x: Array, p: Params, n_head: int, eps: float, block: Block) -> tuple[Array, Residuals]:
    """The layer's output and what its rule keeps."""
    n_1, norm_1 = layer_norm.fwd(x, p.gamma_1, p.beta_1, eps)
    qkv = linear.fun(n_1, p.w_qkv, p.b_qkv)
    heads, attended = attention.fwd(*_heads(qkv, n_head), block)
    merged = merge_heads(heads)
    x_1 = residual.fun(x, linear.fun(merged, p.w_out, p.b_out))
    n_2, norm_2 = layer_norm.fwd(x_1, p.gamma_2, p.beta_2, eps)
    z, inner = mlp.fwd(n_2, p.w_fc, p.b_fc, p.w_proj, p.b_proj)
    kept = Residuals(
        x=x,
        mean_1=norm_1.mean,
        m_1=norm_1.m,
        attended=attended._replace(o=None) if isinstance(attended, Attention) else attended,
        o=merged,
        x_1=x_1,
        mean_2=norm_2.mean,
        m_2=norm_2.m,
        u=inner.u,
    )
    return residual.fun(x_1, z), kept


def _check(x: Array, p: Params, n_head: int, block: Block) -> None:
    check_args(
        "fused.block",
        x=(x, "... s h"),
        **{name: (getattr(p, name), "h") for name in ("gamma_1", "beta_1", "gamma_2", "beta_2", "b_out", "b_proj")},
        w_out=(p.w_out, "h h"),
        w_qkv=(p.w_qkv, "h 3h"),
        b_qkv=(p.b_qkv, "3h"),
        w_fc=(p.w_fc, "h i"),
        b_fc=(p.b_fc, "i"),
        w_proj=(p.w_proj, "i h"),
    )
    h = x.shape[-1]
    if p.w_qkv.shape[-1] != 3 * h:
        raise ValueError(f"fused.block: w_qkv has {p.w_qkv.shape[-1]} columns, but 3h = {3 * h}: q, k and v")
    if n_head < 1 or h % n_head:
        raise ValueError(f"fused.block: n_head is {n_head}, but must divide h = {h}")
    check_block("fused.block", block)


@custom_vjp(nondiff_argnums=(13, 14, 15, 16))
@jax.named_scope("block")
def block(
    x: Array,
    gamma_1: Array,
    beta_1: Array,
    w_qkv: Array,
    b_qkv: Array,
    w_out: Array,
    b_out: Array,
    gamma_2: Array,
    beta_2: Array,
    w_fc: Array,
    b_fc: Array,
    w_proj: Array,
    b_proj: Array,
    n_head: int,
    eps: float,
    block: Block,
    recompute: bool = False,
) -> Array:
    """One block of GPT-2: x₁ = x + attention(norm₁(x)), then x₁ + mlp(norm₂(x₁)).

    Args:
      x: (..., s, h).
      gamma_1, beta_1, gamma_2, beta_2: γ and β (h,) of both norms.
      w_qkv, b_qkv: The projection to queries, keys and values, (h, 3h) and (3h,).
      w_out, b_out: The output projection, (h, h) and (h,).
      w_fc, b_fc, w_proj, b_proj: The MLP's projections, (h, i), (i,), (i, h) and (h,).
      n_head: The number of heads, a divisor of h.
      eps: ε > 0 of both norms.
      block: As in `attention`.
      recompute: Keep x alone, and run the forward again in the backward pass.

    Returns:
      (..., s, h), in x's dtype.

    Raises:
      ValueError: The shapes do not agree, or `n_head` does not divide h.
      TypeError: A dtype is not floating, or the dtypes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import ops
      >>> h, hh = jnp.ones(2), jnp.zeros((2, 2))
      >>> attention = jnp.zeros((2, 6)), jnp.zeros(6), hh, h
      >>> ops.fused.block(jnp.ones((1, 2)), h, h, *attention, h, h, hh, h, hh, h, 1, 1e-5, 1).tolist()
      [[3.0, 3.0]]
    """
    p = Params(gamma_1, beta_1, w_qkv, b_qkv, w_out, b_out, gamma_2, beta_2, w_fc, b_fc, w_proj, b_proj)
    _check(x, p, n_head, block)
    return _run(x, p, n_head, eps, block)[0]


@jax.named_scope("block")
def _fwd(x: Array, *args: Any) -> tuple[Array, tuple[Params, Residuals | Array]]:
    p, (n_head, eps, block, recompute) = Params(*args[:12]), args[12:]
    _check(x, p, n_head, block)
    y, kept = _run(x, p, n_head, eps, block)
    return y, (p, x if recompute else kept)


@jax.named_scope("block")
def _bwd(n_head: int, eps: float, block: Block, recompute: bool, all_kept: Any, dy: Array) -> tuple[Array, ...]:
    p, kept = all_kept
    if recompute:
        _, kept = _run(depend_on(kept, dy), p, n_head, eps, block)
    norm_1 = Norm(kept.x, kept.mean_1, kept.m_1, p.gamma_1, PrimalType.of(p.beta_1))
    norm_2 = Norm(kept.x_1, kept.mean_2, kept.m_2, p.gamma_2, PrimalType.of(p.beta_2))
    inner = Mlp(_normed(dy, norm_2, p.beta_2), kept.u, p.w_fc, p.w_proj, PrimalType.of(p.b_fc), PrimalType.of(p.b_proj))
    dn_2, dw_fc, db_fc, dw_proj, db_proj = mlp.bwd(inner, dy)
    dx_1, dgamma_2, dbeta_2 = layer_norm.bwd(eps, norm_2, dn_2)
    dx_1 = residual.fun(dy, dx_1)
    do, dw_out, db_out = linear.bwd(Linear(kept.o, p.w_out, PrimalType.of(p.b_out)), dx_1)
    attended = kept.attended
    if isinstance(attended, Attention):
        attended = attended._replace(o=split_heads(depend_on(kept.o, do), n_head))
    dheads = attention.bwd(block, attended, split_heads(do, n_head))
    dqkv = jnp.concatenate([merge_heads(part) for part in dheads], axis=-1)
    dn_1, dw_qkv, db_qkv = linear.bwd(Linear(_normed(dx_1, norm_1, p.beta_1), p.w_qkv, PrimalType.of(p.b_qkv)), dqkv)
    dx, dgamma_1, dbeta_1 = layer_norm.bwd(eps, norm_1, dn_1)
    attn = (dgamma_1, dbeta_1, dw_qkv, db_qkv, dw_out, db_out)
    return residual.fun(dx_1, dx), *attn, dgamma_2, dbeta_2, dw_fc, db_fc, dw_proj, db_proj


block.defvjp(_fwd, _bwd)

# Each part's row and the widths at which it stands here.
USES = (
    (LAYER_NORM, {}),
    (LINEAR, {i: h, o: 3 * h}),
    (ATTENTION, {}),
    (LINEAR, {i: h, o: h}),
    (LAYER_NORM, {}),
    (MLP, {i: h, o: 4 * h}),
)
_sum = partial(summed, USES)

ADJUSTMENTS = tuple(dict.fromkeys(cause for spec, _ in USES for cause in spec.adjustments))
FAN_IN = WAIT = 2 * b * s * h
NORMS = 2 * 6 * b * s * h  # x + 0·dy, x̂, γ x̂, + β of both, whose rstd are 2bs transcendentals

SPEC = OpSpec(
    op=block,
    source="D2, Final Tally (a layer)",
    arguments={
        "x": "b s h",
        "gamma_1": "h",
        "beta_1": "h",
        "w_qkv": "h 3*h",
        "b_qkv": "3*h",
        "w_out": "h h",
        "b_out": "h",
        "gamma_2": "h",
        "beta_2": "h",
        "w_fc": "h 4*h",
        "b_fc": "4*h",
        "w_proj": "4*h h",
        "b_proj": "h",
    },
    statics={"n_head": n_h, "eps": 1e-5, "block": m, "recompute": False},
    scale={name: 1 / sympy.sqrt(h) for name in ("w_qkv", "w_out", "w_fc", "w_proj")},
    forward=OpCost(
        _sum(lambda spec: spec.forward.flops) + 2 * b * s * h,
        _sum(lambda spec: spec.forward.transcendentals),
    ),
    backward=OpCost(
        _sum(lambda spec: spec.backward.flops) + FAN_IN + NORMS + WAIT,
        _sum(lambda spec: spec.backward.transcendentals) + 2 * b * s,
    ),
    fwd_extra=OpCost(_sum(lambda spec: spec.fwd_extra.flops), _sum(lambda spec: spec.fwd_extra.transcendentals)),
    published_flops=_sum(lambda spec: spec.published_flops),
    adjustments={
        **{cause: _sum(lambda spec, cause=cause: spec.adjustments.get(cause, 0)) for cause in ADJUSTMENTS},
        "norms' outputs recomputed": NORMS,
        "o awaits its cotangent": WAIT,
        "residual fan-in": FAN_IN,
    },
    residuals=item * (10 * b * s * h + 12 * h**2 + 13 * h) + a * (4 * b * s + 2 * b * n_h * s) + 4 * b * n_h * s,
    special={"one head": Special(dims={"n_h": 1, "d": 10})},
)
