"""Linear layer over rows: z = x w + bias, whatever leads x's last axis counted as one axis of rows.

Derivation. `linear` gives dx = dz wᵀ, dw = Σ_r x_r dz_rᵀ, dbias = Σ_r dz_r over the b·s rows r. With X and dZ the rows
one under the other, both sums over (b, s) are sums over one axis, and every product is one of two matrices:

    dX = dZ wᵀ        dw = Xᵀ dZ        dbias = Σ_r dZ_r

Kept: x and w. Cost: that of `linear`: no FLOP is won, but a reduction over two axes, and with it a transposition.
Source: D2, "Tensor Contractions".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from refgrad._jax import custom_vjp
from refgrad.ops._agree import agree
from refgrad.ops._numerics import Like, lift, product, rows, wide
from refgrad.ops._row import Row
from refgrad.ops.linear import ROW as PLAIN


class Residuals(NamedTuple):
    """x (..., i), w (i, o), and the bias's type."""

    x: Array
    w: Array
    bias: Like


@custom_vjp
@jax.named_scope("linear")
def linear(x: Array, w: Array, bias: Array) -> Array:
    """x (..., i), w (i, o), bias (o,) → (..., o). Raises ValueError or TypeError where they do not agree."""
    agree("fused.linear", x=(x, "... i"), w=(w, "i o"), bias=(bias, "o"))
    z = product("ri,io->ro", rows(x), w) + lift(wide(bias), 2)
    return z.astype(x.dtype).reshape(*x.shape[:-1], w.shape[1])


@jax.named_scope("linear")
def _fwd(x: Array, w: Array, bias: Array) -> tuple[Array, Residuals]:
    return linear.fun(x, w, bias), Residuals(x, w, Like.of(bias))


@jax.named_scope("linear")
def _bwd(kept: Residuals, dz: Array) -> tuple[Array, Array, Array]:
    like_x, like_w = Like.of(kept.x), Like.of(kept.w)
    x, dz = rows(kept.x), rows(dz)
    dx = product("ro,io->ri", dz, kept.w).reshape(kept.x.shape)
    dw = product("ri,ro->io", x, dz, like_w.sharding)
    return like_x(dx), like_w(dw), kept.bias(jnp.sum(wide(dz), axis=0))


linear.defvjp(_fwd, _bwd)

ROW = Row(
    op=linear,
    source=PLAIN.source,
    arguments=PLAIN.arguments,
    forward=PLAIN.forward,
    backward=PLAIN.backward,
    document=PLAIN.document,
    causes=PLAIN.causes,
    residuals=PLAIN.residuals,
)
