"""Special functions: the series into which JAX expands each, read off its own lowering.

How many terms a series has differs by dtype and by JAX's version, so that no figures stand here: the primitive is
lowered by itself at one element and at two, once a process for each dtype, and from the two counts follow what an
element costs and what is fixed. Its loops, which run until they converge, count one iteration.
"""

from functools import cache
from typing import NamedTuple

import jax
from jax.extend.core import JaxprEqn, Primitive

from refgrad.cost import hlo
from refgrad.cost.primitives.rule import Rule, Work, names
from refgrad.jaxpr.avals import dtype_of, size


class Expansion(NamedTuple):
    """(flops, transcendentals) of an element, those that are fixed, and whether a loop is among them."""

    each: hlo.Pair
    fixed: hlo.Pair
    loops: bool


def series(eqn: JaxprEqn) -> Work:
    """The expansion's cost of one element times the elements, and its fixed part, such as a loop's counter."""
    dtypes = tuple(map(dtype_of, eqn.invars))
    # with 64-bit types on, a coefficient that is a Python number is converted; a program of them may be counted later
    x64 = jax.config.jax_enable_x64 or any(dtype.itemsize == 8 for dtype in dtypes)
    each, fixed, loops = expansion(eqn.primitive, dtypes, x64)
    n = size(eqn.outvars[0])
    return Work(
        elementwise=n * each.flops + fixed.flops,
        transcendental=n * each.transcendentals + fixed.transcendentals,
        per_trip=loops,
    )


@cache
def expansion(primitive: Primitive, dtypes: tuple, x64: bool) -> Expansion:
    """What a primitive on operands of these dtypes is lowered to. Nothing is compiled or run."""
    one, two = (_lowered(primitive, dtypes, x64, n) for n in (1, 2))
    each = hlo.Pair(two.flops - one.flops, two.transcendentals - one.transcendentals)
    fixed = hlo.Pair(one.flops - each.flops, one.transcendentals - each.transcendentals)
    return Expansion(each, fixed, bool(one.loops))


def _lowered(primitive: Primitive, dtypes: tuple, x64: bool, n: int) -> hlo.HloCost:
    with jax.enable_x64(x64):
        operands = [jax.ShapeDtypeStruct((n,), dtype) for dtype in dtypes]
        return hlo.cost(jax.jit(primitive.bind).lower(*operands).as_text(dialect="hlo", debug_info=True))


RULES: dict[str, Rule] = dict.fromkeys(
    names(
        "bessel_i0e bessel_i1e digamma erf_inv erfc igamma igamma_grad_a igammac lgamma polygamma "
        "regularized_incomplete_beta zeta"
    ),
    series,
)
