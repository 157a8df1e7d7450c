"""Which outputs of a traced program depend on which of its inputs, and the part of it that makes some of them.

An optimiser's update is such a program: where no new parameter and no new state leaf depends on two gradients, each can
be made as soon as its own gradient exists. Both questions are answered equation by equation, through calls, branches
and loops; sets of inputs are the bits of an integer.
"""

from collections.abc import Sequence
from functools import partial, reduce
from operator import or_
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import source_info_util
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from refgrad._jax import scan_operands
from refgrad.cost.primitives.rule import dtype_of, shape_of

# Calls without meaning of their own to a program that is not differentiated, by where they keep what they call.
CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "eval_jaxpr": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
}


def called(eqn: JaxprEqn) -> ClosedJaxpr | None:
    """The program that the equation merely calls, None where it does something of its own."""
    key = CALLS.get(eqn.primitive.name)
    return None if key is None else _closed(eqn.params[key])


def _closed(program: ClosedJaxpr | Jaxpr) -> ClosedJaxpr:
    return program if isinstance(program, ClosedJaxpr) else ClosedJaxpr(program, ())


def dependence(program: ClosedJaxpr | Jaxpr, inputs: Sequence[int]) -> list[int]:
    """For each output, the union of the sets that stand for the `inputs` from which it is made."""
    jaxpr = _closed(program).jaxpr
    env = dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> int:
        return 0 if isinstance(atom, Literal) else env.get(atom, 0)

    for eqn in jaxpr.eqns:
        env.update(zip(eqn.outvars, _equation(eqn, [read(v) for v in eqn.invars]), strict=True))
    return [read(v) for v in jaxpr.outvars]


def _equation(eqn: JaxprEqn, sets: list[int]) -> Sequence[int]:
    """The outputs' sets; where nothing more is known, every output depends on every operand."""
    p, name = eqn.params, eqn.primitive.name
    if inner := called(eqn):
        return dependence(inner, sets)
    if name == "cond":
        branches = [dependence(branch, sets[1:]) for branch in p["branches"]]
        return [reduce(or_, outs, sets[0]) for outs in zip(*branches, strict=True)]
    if name == "scan":
        fixed, carry = scan_operands(p)

        def body(carried: list[int]) -> list[int]:
            return dependence(p["jaxpr"], [*sets[:fixed], *carried, *sets[fixed + carry :]])

        carried = _fixed_point(lambda now: body(now)[:carry], sets[fixed:][:carry])
        return [*carried, *body(carried)[carry:]]
    if name == "while":
        tested, fixed = p["cond_nconsts"], p["body_nconsts"]
        in_test, in_body = sets[:tested], sets[tested:][:fixed]

        def once(carried: list[int]) -> list[int]:
            (stop,) = dependence(p["cond_jaxpr"], [*in_test, *carried])  # how often it runs is in every output
            return [stop | out for out in dependence(p["body_jaxpr"], [*in_body, *carried])]

        return _fixed_point(once, sets[tested + fixed :])
    return [reduce(or_, sets, 0)] * len(eqn.outvars)


def _fixed_point(step: Any, carried: list[int]) -> list[int]:
    """What the carried values depend on after any number of iterations, none included."""
    while (more := [old | new for old, new in zip(carried, step(carried), strict=True)]) != carried:
        carried = more
    return carried


def needed(jaxpr: Jaxpr, wanted: Sequence[bool]) -> tuple[list[JaxprEqn], set[Any]]:
    """The equations that make the wanted outputs, in order, and every variable that they read or hand on."""
    alive = {v for v, want in zip(jaxpr.outvars, wanted, strict=True) if want and not isinstance(v, Literal)}
    eqns: list[JaxprEqn] = []
    for eqn in reversed(jaxpr.eqns):
        outs = [v in alive for v in eqn.outvars]
        if any(outs):
            eqns.append(eqn)
            alive |= {
                v for v, read in zip(eqn.invars, _reads(eqn, outs), strict=True) if read and not isinstance(v, Literal)
            }
    return eqns[::-1], alive


def _reads(eqn: JaxprEqn, outs: Sequence[bool]) -> list[bool]:
    """Which operands the equation needs for these of its outputs."""
    if inner := called(eqn):
        return _inputs(inner.jaxpr, outs)
    if eqn.primitive.name == "cond":
        branches = [_inputs(branch.jaxpr, outs) for branch in eqn.params["branches"]]
        return [True, *map(any, zip(*branches, strict=True))]
    return [True] * len(eqn.invars)


def _inputs(jaxpr: Jaxpr, outs: Sequence[bool]) -> list[bool]:
    _, alive = needed(jaxpr, outs)
    return [v in alive for v in jaxpr.invars]


def evaluate(program: ClosedJaxpr | Jaxpr, values: Sequence[Any], wanted: Sequence[bool]) -> list[Any]:
    """The wanted outputs at `values`, None in place of the others: only what makes them is traced.

    An input that is None stands for zeros, to be given where no wanted output depends on it.
    """
    closed = _closed(program)
    jaxpr = closed.jaxpr
    eqns, alive = needed(jaxpr, wanted)
    env = dict(zip(jaxpr.constvars, closed.consts, strict=True)) | dict(zip(jaxpr.invars, values, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else env.get(atom)

    for eqn in eqns:
        with eqn.ctx.manager:
            outs = _run(eqn, [read(v) for v in eqn.invars], [v in alive for v in eqn.outvars])
        env.update(zip(eqn.outvars, outs, strict=True))
    return [read(v) if want else None for v, want in zip(jaxpr.outvars, wanted, strict=True)]


def _run(eqn: JaxprEqn, values: list[Any], outs: list[bool]) -> Sequence[Any]:
    """One equation's outputs: calls in place, branches with the wanted outputs alone, everything else as it is."""
    if inner := called(eqn):
        return evaluate(inner, values, outs)
    whole = [jnp.zeros(shape_of(v), dtype_of(v)) if x is None else x for v, x in zip(eqn.invars, values, strict=True)]
    if eqn.primitive.name == "cond":
        reads = _reads(eqn, outs)[1:]

        def branch(program: ClosedJaxpr, *operands: Any) -> list[Any]:
            given = iter(operands)
            results = evaluate(program, [next(given) if read else None for read in reads], outs)
            return [x for x, out in zip(results, outs, strict=True) if out]

        branches = [partial(branch, program) for program in eqn.params["branches"]]
        made = iter(jax.lax.switch(whole[0], branches, *(x for x, read in zip(whole[1:], reads, strict=True) if read)))
        return [next(made) if out else None for out in outs]
    primitive = eqn.primitive
    result = primitive.bind(*whole, **primitive.get_bind_params(eqn.params))
    return result if primitive.multiple_results else [result]


def mixing(program: ClosedJaxpr | Jaxpr, inputs: Sequence[int]) -> str:
    """Where a value first depends on two of the inputs, of sets of one each: file:line (function), or the primitive."""
    jaxpr = _closed(program).jaxpr
    env = dict(zip(jaxpr.invars, inputs, strict=True))
    for eqn in jaxpr.eqns:
        sets = [0 if isinstance(v, Literal) else env.get(v, 0) for v in eqn.invars]
        outs = _equation(eqn, sets)
        if any(out.bit_count() > 1 for out in outs):
            inner = called(eqn)
            return (inner and mixing(inner, sets)) or source_info_util.summarize(eqn.source_info) or eqn.primitive.name
        env.update(zip(eqn.outvars, outs, strict=True))
    return ""
