"""Variables that decide which programs run, and how often: the index of a branch, and what a loop's condition asks."""

from functools import reduce
from operator import or_
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from refgrad.jaxpr.calls import Bodies, Body, Form, bodies_of
from refgrad.jaxpr.dependence import dependence, reaching
from refgrad.jaxpr.programs import inside
from refgrad.jaxpr.versions import opened

Program = ClosedJaxpr | Jaxpr


def deciding(program: Program) -> list[Any]:
    """Return the variables of a program that decide which programs its equations run, or how often, at any depth."""
    return list(dict.fromkeys(v for eqn in opened(program).eqns for v in _of_equation(eqn)))


def grid_axes_inside(program: Program) -> list[int]:
    """Return the axes of a kernel's grid whose point is asked for in programs that its equations run."""
    inner = (eqn for outer in opened(program).eqns for eqn in inside(outer))
    return sorted({eqn.params["axis"] for eqn in inner if eqn.primitive.name == "program_id"})


def _of_equation(eqn: JaxprEqn) -> list[Any]:
    bodies = bodies_of(eqn)
    if bodies is None or bodies.form is Form.OPAQUE:
        return []
    wanted = set(bodies.also_needed) if bodies.form is Form.BRANCHES and len(bodies.all) > 1 else set()
    for body in bodies.all:
        wanted |= {i for argument in _arguments(bodies, body) if (i := body.inputs[argument]) is not None}
    return [eqn.invars[i] for i in sorted(wanted) if not isinstance(eqn.invars[i], Literal)]


def _arguments(bodies: Bodies, body: Body) -> set[int]:
    """Return the arguments of a body that decide inside it, or how often it runs."""
    decided = deciding(body.jaxpr)
    if not decided and bodies.form is not Form.WHILE:
        return set()
    jaxpr = opened(body.jaxpr)
    sources = reaching(body.jaxpr, _bits(body))
    mask = reduce(or_, (sources.get(v, 0) for v in decided), 0)
    if bodies.form is Form.WHILE:
        mask |= _asked(bodies.all[0], body)
    if bodies.form not in (Form.WHILE, Form.SCAN) or body is not bodies.all[-1]:
        return _indices(mask)
    carried = jaxpr.outvars[: body.carry] if bodies.form is Form.SCAN else jaxpr.outvars
    made = [0 if isinstance(v, Literal) else sources.get(v, 0) for v in carried]
    while True:  # what decides at a later trip is made at an earlier one
        more = reduce(or_, (m for k, m in enumerate(made) if mask >> (body.carry_start + k) & 1), mask)
        if more == mask:
            return _indices(mask)
        mask = more


def _asked(test: Body, body: Body) -> int:
    """Return the arguments of a part of a `while` that its condition, `test`, asks."""
    (asked,) = dependence(test.jaxpr, _bits(test))
    return asked if body is test else asked >> test.carry_start << body.carry_start


def _bits(body: Body) -> list[int]:
    return [1 << i for i in range(len(body.inputs))]


def _indices(mask: int) -> set[int]:
    return {i for i in range(mask.bit_length()) if mask >> i & 1}
