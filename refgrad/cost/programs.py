"""Equations that the lowering turns into a program of its own: a call of a library, or a loop.

A custom call (LAPACK, cuSOLVER, a callback) counts −1 whatever it does; random bits on CPU are a rolled-up loop; and
the instructions around either bear names of their own. So each such equation is lowered by itself, and that little
program is compared with the equation's own count.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import JaxprEqn, Literal

from refgrad.cost import hlo
from refgrad.cost.count import count
from refgrad.cost.equations import Equation
from refgrad.cost.primitives import dots, elementwise, indexing, movement, reductions, special
from refgrad.cost.types import Count
from refgrad.jaxpr.interpret import Interpreter

# Primitives that the count prices as mathematics and that are lowered to more than that.
_EXPANDED = {"ragged_dot_general": "lowered as every group's product, masked"}
# Primitives that are a fixed handful of instructions on every platform.
_PLAIN = {name for family in (dots, elementwise, indexing, movement, reductions, special) for name in family.RULES}
_PLAIN -= {"debug_callback", "debug_print", "inspect_sharding"}  # calls of the host
_BOUND = ("NamedAxisEffect", "ReadEffect", "WriteEffect", "AccumEffect")


class OwnProgram(NamedTuple):
    """A primitive with a program of its own: what that is, and (HLO's count − the jaxpr's) over all its runs."""

    primitive: str
    what: str
    flops: int
    transcendentals: int


def is_sharding_mark(target: str) -> bool:
    """Return True for a custom call that only notes a sharding."""
    return target.startswith("xla.sdy.") or target in ("Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape")


def own_programs(expected: list[Equation], whole: hlo.HloCost, platform: str) -> Iterator[OwnProgram]:
    """The equations among `expected` whose own lowering holds a custom call, a loop (with its trips) or literals.

    `whole` is the walk over the module that they are part of: where it holds neither, there is nothing to look for.
    """
    alone: dict[Any, tuple[Count, hlo.HloCost]] = {}
    worth_looking = bool(whole.loops or any(not is_sharding_mark(target) for target, _ in whole.custom_calls()))
    for equation in expected:
        eqn = equation.eqn
        literals = any(isinstance(v, Literal) for v in eqn.invars)
        if not _can_stand_alone(eqn) or not (worth_looking or literals or eqn.primitive.name in _EXPANDED):
            continue
        key = eqn.primitive.name, str(eqn.params), tuple(map(_operand, eqn.invars)), equation.wanted
        if key not in alone:
            alone[key] = _alone(equation, platform)
        counted, walked = alone[key]
        what = _EXPANDED.get(eqn.primitive.name) or _what(walked) or "lowered with literals folded" * literals
        if what:
            rows = [row for row in walked.program_rows if not _marks(row)]
            flops = sum(row.flops * row.times for row in rows) - counted.flops
            transcendentals = sum(row.transcendentals * row.times for row in rows) - counted.transcendental
            yield OwnProgram(eqn.primitive.name, what, flops * equation.times, transcendentals * equation.times)


def _operand(v: Any) -> str:
    """Return the part of an operand that its lowering depends on: its type, and a literal's value."""
    return f"{v.aval}={v.val}" if isinstance(v, Literal) else str(v.aval)


def _what(cost: hlo.HloCost) -> str:
    targets = dict.fromkeys(target for target, _ in cost.custom_calls() if not is_sharding_mark(target))
    if targets:
        return f"a call of {', '.join(targets)}, −1 each"
    return "a loop of its own" if cost.loops else ""


def _marks(row: hlo.HloRow) -> bool:
    target = row.instruction.attribute("custom_call_target")
    return target is not None and is_sharding_mark(target)


def _can_stand_alone(eqn: JaxprEqn) -> bool:
    """Return True for an equation that could be a program of its own, lowered outside the program that holds it."""
    name = eqn.primitive.name
    if name in _PLAIN and name not in _EXPANDED:
        return False
    # A collective cannot be lowered outside its mesh, nor a reading of a Ref outside what made the Ref.
    return not any(type(effect).__name__ in _BOUND for effect in eqn.effects)


def _alone(equation: Equation, platform: str) -> tuple[Count, hlo.HloCost]:
    """The equation as a little program with its own literals: its count, and the walk over its lowering."""
    eqn = equation.eqn

    def program(*arrays):
        given = iter(arrays)
        operands = [_literal(v) if isinstance(v, Literal) else next(given) for v in eqn.invars]
        results = Interpreter().bind(eqn, operands)
        return [result for result, wanted in zip(results, equation.wanted, strict=True) if wanted]

    avals: list[Any] = [v.aval for v in eqn.invars if not isinstance(v, Literal)]
    abstract = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals]
    lowered = jax.jit(program).trace(*abstract).lower(lowering_platforms=(platform,))
    walked = hlo.cost(lowered.as_text(dialect="hlo", debug_info=True), unknown="collect")
    return count(program, *abstract, unknown="count"), walked


def _literal(v: Literal) -> Any:
    aval: Any = v.aval
    return np.asarray(v.val, aval.dtype)
