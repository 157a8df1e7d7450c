"""Equations that become calls of a library (LAPACK, cuSOLVER, a callback): what XLA counts for them instead.

A custom call counts −1 whatever it does, and the instructions around it bear names of their own. So each such equation
is lowered by itself, and that little program's count is compared with the equation's own.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from jax.extend.core import JaxprEqn

from refgrad.cost import hlo
from refgrad.cost.equations import Equation
from refgrad.cost.folding import OPCODES
from refgrad.cost.primitives import TABLE, movement
from refgrad.cost.primitives.rule import Work

_NEVER = {*OPCODES, *movement.RULES, "dot_general", "conv_general_dilated", "reduce_sum", "reduce_max", "iota"}


class LibraryCall(NamedTuple):
    """A primitive that calls a library: the targets, and (XLA's count − the jaxpr's) over all its runs."""

    primitive: str
    targets: tuple[str, ...]
    flops: int
    transcendentals: int


def library_calls(expected: list[Equation], platform: str) -> Iterator[LibraryCall]:
    """The equations among `expected` whose own lowering holds a custom call."""
    alone: dict[Any, hlo.HloCost] = {}
    for equation in expected:
        eqn = equation.eqn
        work = _work(eqn)
        if work is None:
            continue
        key = eqn.primitive.name, str(eqn.params), tuple(str(v.aval) for v in eqn.invars), equation.wanted
        if key not in alone:
            alone[key] = _lowered_alone(equation, platform)
        cost = alone[key]
        if targets := tuple(dict.fromkeys(target for target, _ in cost.custom_calls())):
            flops = sum(row.flops * row.times for row in cost.program_rows) - work.matmul - work.elementwise
            transcendentals = cost.executed.transcendentals - work.transcendental
            yield LibraryCall(eqn.primitive.name, targets, flops * equation.times, transcendentals * equation.times)


def _work(eqn: JaxprEqn) -> Work | None:
    """What the count has for an equation that could be a library's; None for all others."""
    rule = TABLE.get(eqn.primitive.name)
    if rule is None or eqn.primitive.name in _NEVER or any(type(e).__name__ == "NamedAxisEffect" for e in eqn.effects):
        return None
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
