"""Special functions: the series into which JAX expands each, read off its own lowering.

How many terms a series has differs by dtype and by JAX's version, so that no figures stand here: the primitive is
lowered by itself at one element and at two, once a process for each dtype, and from the two counts follow what an
element costs and what is fixed. Its loops, which run until they converge, count one iteration.
"""

from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import jax
from jax.extend.core import JaxprEqn, Primitive

from refgrad.cost import hlo
from refgrad.cost.primitives.rule import Rule, Work, names
from refgrad.jaxpr.avals import dtype_of, size


class Expansion(NamedTuple):
    """(flops, transcendentals) of an element, those that are fixed, whether a loop is among them, and how many
    instructions it has an element, by (JAX's name for it, opcode, HLO's dtype)."""

    each: hlo.ExactCounts
    fixed: hlo.ExactCounts
    loops: bool
    instructions: Counter[tuple[str, str, str]]


def series(eqn: JaxprEqn) -> Work:
    """The expansion's cost of one element times the elements, and its fixed part, such as a loop's counter."""
    each, fixed, loops, _ = expansion(eqn)
    n = size(eqn.outvars[0])
    return Work(
        elementwise=n * each.flops + fixed.flops,
        transcendental=n * each.transcendentals + fixed.transcendentals,
        per_trip=loops,
    )


def expansion(eqn: JaxprEqn) -> Expansion:
    """Return the lowering of an elementwise primitive. Nothing is compiled or run."""
    dtypes = tuple(map(dtype_of, eqn.invars))
    # with 64-bit types on, a coefficient that is a Python number is converted; a program of them may be counted later
    x64 = jax.dtypes.canonicalize_dtype("float64") == "float64" or any(dtype.itemsize == 8 for dtype in dtypes)
    return _expansion(eqn.primitive, tuple(eqn.params.items()), dtypes, x64)


@cache
def _expansion(primitive: Primitive, params: tuple, dtypes: tuple, x64: bool) -> Expansion:
    one, two = (_lowered(partial(primitive.bind, **dict(params)), dtypes, x64, n) for n in (1, 2))
    each = hlo.ExactCounts(two.flops - one.flops, two.transcendentals - one.transcendentals)
    fixed = hlo.ExactCounts(one.flops - each.flops, one.transcendentals - each.transcendentals)
    instructions: Counter[tuple[str, str, str]] = Counter()
    for row in two.rows:
        if row.instruction.shape.dims == (2,):
            instructions[row.primitive, row.instruction.opcode, row.instruction.shape.dtype] += row.times
    return Expansion(each, fixed, bool(one.loops), instructions)


def _lowered(f: Callable, dtypes: tuple, x64: bool, n: int) -> hlo.HloCost:
    with jax.enable_x64(x64):
        operands = [jax.ShapeDtypeStruct((n,), dtype) for dtype in dtypes]
        return hlo.cost(jax.jit(f).lower(*operands).as_text(dialect="hlo", debug_info=True))


RULES: dict[str, Rule] = dict.fromkeys(
    names(
        "bessel_i0e bessel_i1e digamma erf_inv erfc igamma igamma_grad_a igammac lgamma polygamma "
        "regularized_incomplete_beta zeta"
    ),
    series,
)
