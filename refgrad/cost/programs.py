"""Equations that the lowering turns into a program of its own: a call of a library, or a loop.

A custom call (LAPACK, cuSOLVER, a callback) counts −1 whatever it does; random bits on CPU are a rolled-up loop; and
the instructions around either bear names of their own. So each such equation is lowered by itself, and that little
program is compared with the equation's own count.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from jax.extend.core import JaxprEqn

from refgrad.cost import hlo
from refgrad.cost.equations import Equation
from refgrad.cost.primitives import TABLE, dots, elementwise, indexing, movement, reductions
from refgrad.cost.primitives.rule import Work

# Primitives that the count prices as mathematics and that are lowered to more than that.
_EXPANDED = {"ragged_dot_general": "lowered as every group's product, masked"}
# Primitives that are a fixed handful of instructions on every platform.
_PLAIN = {name for family in (dots, elementwise, indexing, movement, reductions) for name in family.RULES}


class OwnProgram(NamedTuple):
    """A primitive with a program of its own: what that is, and (HLO's count − the jaxpr's) over all its runs."""

    primitive: str
    what: str
    flops: int
    transcendentals: int


def is_sharding_mark(target: str) -> bool:
    """Whether a custom call does nothing but note a sharding."""
    return target.startswith("xla.sdy.") or target in ("Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape")


def own_programs(expected: list[Equation], whole: hlo.HloCost, platform: str) -> Iterator[OwnProgram]:
    """The equations among `expected` whose own lowering holds a custom call or a loop; loops with their trips.

    `whole` is the walk over the module that they are part of: where it holds neither, there is nothing to look for.
    """
    alone: dict[Any, hlo.HloCost] = {}
    worth_looking = bool(whole.loops or any(not is_sharding_mark(target) for target, _ in whole.custom_calls()))
    for equation in expected:
        eqn, work = equation.eqn, _work(equation.eqn)
        if work is None or not (worth_looking or eqn.primitive.name in _EXPANDED):
            continue
        key = eqn.primitive.name, str(eqn.params), tuple(str(v.aval) for v in eqn.invars), equation.wanted
        if key not in alone:
            alone[key] = _lowered_alone(equation, platform)
        what = _EXPANDED.get(eqn.primitive.name) or _what(alone[key])
        if what:
            rows = [row for row in alone[key].program_rows if not _marks(row)]
            flops = sum(row.flops * row.times for row in rows) - work.matmul - work.elementwise
            transcendentals = sum(row.transcendentals * row.times for row in rows) - work.transcendental
            yield OwnProgram(eqn.primitive.name, what, flops * equation.times, transcendentals * equation.times)


def _what(cost: hlo.HloCost) -> str:
    targets = dict.fromkeys(target for target, _ in cost.custom_calls() if not is_sharding_mark(target))
    if targets:
        return f"a call of {', '.join(targets)}, −1 each"
    return "a loop of its own" if cost.loops else ""


def _marks(row: hlo.Row) -> bool:
    target = row.instruction.attribute("custom_call_target")
    return target is not None and is_sharding_mark(target)


def _work(eqn: JaxprEqn) -> Work | None:
    """What the count has for an equation that could be a program of its own; None for all others."""
    rule = TABLE.get(eqn.primitive.name)
    name = eqn.primitive.name
    if rule is None or (name in _PLAIN and name not in _EXPANDED):
        return None
    if any(type(effect).__name__ == "NamedAxisEffect" for effect in eqn.effects):
        return None  # a collective cannot be lowered outside its mesh
    work = rule(eqn)
    return work if isinstance(work, Work) else None


def _lowered_alone(equation: Equation, platform: str) -> hlo.HloCost:
    eqn = equation.eqn

    def program(*operands):
        results = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(eqn.params))
        results = results if eqn.primitive.multiple_results else [results]
        return [result for result, wanted in zip(results, equation.wanted, strict=True) if wanted]

    avals: list[Any] = [v.aval for v in eqn.invars]
    abstract = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals]
    lowered = jax.jit(program).trace(*abstract).lower(lowering_platforms=(platform,))
    return hlo.cost(lowered.as_text(dialect="hlo", debug_info=True), unknown="collect")
