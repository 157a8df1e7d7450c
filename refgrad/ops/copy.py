"""The copy gate, a fan-out: z₁ = z₂ = x.

Derivation. x reaches the loss along two paths, each with the local derivative 1, and the chain rule sums over paths:
the gate adds what comes back,

    dx = dz₁ + dz₂

Kept: nothing but a type. Cost: an addition an element, the fan-in of every residual stream and tied weight; the
document prints no count.
Source: D3, "Backpropagation in practice".
"""

import jax
from jax import Array

from refgrad.jaxpr.versions import custom_vjp
from refgrad.ops._agree import agree
from refgrad.ops._numerics import Like, wide
from refgrad.ops._row import Cost, Row
from refgrad.symbols import b, i, s


@custom_vjp
@jax.named_scope("copy")
def copy(x: Array) -> tuple[Array, Array]:
    """x of any shape → (x, x). Raises TypeError where x is not floating."""
    agree("copy", x=(x, "..."))
    return x, x


@jax.named_scope("copy")
def _fwd(x: Array) -> tuple[tuple[Array, Array], Like]:
    return copy.fun(x), Like.of(x)


@jax.named_scope("copy")
def _bwd(kept: Like, dz: tuple[Array, Array]) -> tuple[Array]:
    first, second = dz
    return (kept(wide(first) + wide(second)),)


copy.defvjp(_fwd, _bwd)

ROW = Row(
    op=copy,
    source="D3, Backpropagation in practice",
    arguments={"x": "b s i"},
    forward=Cost(0),
    backward=Cost(b * s * i),
    document=0,
    causes={"fan-in": b * s * i},
    residuals=0,
)
