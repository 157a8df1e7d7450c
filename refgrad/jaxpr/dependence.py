"""Dependence of a program's outputs on its inputs, and the part of a program that makes some outputs.

An optimiser's update is such a program: where no new parameter and no new state leaf depends on two gradients, each can
be made as soon as its own gradient exists. Sets of inputs are the bits of an integer.
"""

from collections.abc import Sequence
from functools import partial, reduce
from operator import or_
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from refgrad.jaxpr.analysis import Backward, Forward
from refgrad.jaxpr.avals import dtype_of, shape_of
from refgrad.jaxpr.calls import Form, bodies_of, callee
from refgrad.jaxpr.interpret import Interpreter
from refgrad.jaxpr.programs import line
from refgrad.jaxpr.versions import closed, opened

Program = ClosedJaxpr | Jaxpr


class _Dependence(Forward[int]):
    unknown = 0

    def join(self, one: int, other: int) -> int:
        return one | other

    def equation(self, eqn: JaxprEqn, entering: list[int]) -> Sequence[int]:
        """Assume that every output depends on every operand."""
        return [reduce(or_, entering, 0)] * len(eqn.outvars)


def dependence(program: Program, inputs: Sequence[int]) -> list[int]:
    """Return for each output the union of the sets that stand for the `inputs` from which it is made."""
    return _Dependence().run(program, inputs)


def reaching(program: Program, inputs: Sequence[int]) -> dict[Any, int]:
    """Return for each variable the union of the sets that stand for the `inputs` from which it is made."""
    return _Dependence().flow(program, inputs)


def mixing(program: Program, inputs: Sequence[int]) -> str:
    """Return where a value first depends on two of the inputs, of sets of one each.

    That is a `file:line (function)`, or a primitive's name; empty where no value does.
    """
    analysis = _Dependence()
    env = analysis.flow(program, inputs)
    for eqn in opened(program).eqns:
        if any(env[v].bit_count() > 1 for v in eqn.outvars):
            inner = callee(eqn)
            deeper = inner and mixing(inner, [analysis.read(env, v) for v in eqn.invars])
            return deeper or line(eqn) or eqn.primitive.name
    return ""


class NeededEquation(NamedTuple):
    """An equation that is needed, and which of its outputs and operands are."""

    eqn: JaxprEqn
    outputs: tuple[bool, ...]
    operands: tuple[bool, ...]


class _Needed(Backward[bool, list[NeededEquation]]):
    nothing, everything = False, True

    def join(self, one: bool, other: bool) -> bool:
        return one or other

    def equation(
        self, eqn: JaxprEqn, results: tuple[bool, ...], facts: Any
    ) -> tuple[list[NeededEquation], Sequence[bool]]:
        bodies = bodies_of(eqn)
        if bodies is not None and bodies.form in (Form.CALL, Form.BRANCHES):
            operands = tuple(self.bodies(eqn, bodies, results, facts)[1])
        else:
            operands = (True,) * len(eqn.invars)
        return [NeededEquation(eqn, results, operands)], operands

    def gather(self, payloads: list[list[NeededEquation]]) -> list[NeededEquation]:
        return [step for payload in payloads for step in payload]


def evaluate(program: Program, values: Sequence[Any], wanted: Sequence[bool]) -> list[Any]:
    """Return the wanted outputs at `values`, None in place of the others: only what makes them is traced.

    An input that is None stands for zeros; it may be given where no wanted output depends on it.
    """
    jaxpr = opened(program)
    steps, _ = _Needed().walk(program, tuple(wanted))
    env = dict(zip(jaxpr.constvars, closed(program).consts, strict=True)) | dict(zip(jaxpr.invars, values, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else env.get(atom)

    for step in steps:
        with step.eqn.ctx.manager:
            env.update(zip(step.eqn.outvars, _run(step, [read(v) for v in step.eqn.invars]), strict=True))
    return [read(v) if want else None for v, want in zip(jaxpr.outvars, wanted, strict=True)]


def _run(step: NeededEquation, values: list[Any]) -> Sequence[Any]:
    """Run one equation: calls in place, branches with the wanted outputs alone, everything else as it is."""
    eqn, bodies = step.eqn, bodies_of(step.eqn)
    if bodies is not None and bodies.form is Form.CALL:
        return evaluate(bodies.all[0].jaxpr, values, step.outputs)
    whole = [jnp.zeros(shape_of(v), dtype_of(v)) if x is None else x for v, x in zip(eqn.invars, values, strict=True)]
    if bodies is not None and bodies.form is Form.BRANCHES:
        reads = step.operands[1:]

        def branch(program: Program, *operands: Any) -> list[Any]:
            given = iter(operands)
            results = evaluate(program, [next(given) if read else None for read in reads], step.outputs)
            return [x for x, wanted in zip(results, step.outputs, strict=True) if wanted]

        branches = [partial(branch, body.jaxpr) for body in bodies.all]
        operands = [x for x, read in zip(whole[1:], reads, strict=True) if read]
        made = iter(jax.lax.switch(whole[0], branches, *operands))
        return [next(made) if wanted else None for wanted in step.outputs]
    return Interpreter().bind(eqn, whole)
