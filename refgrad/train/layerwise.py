"""Does a program treat each layer of its stacked arrays alone, so that it can be run on one layer's slice?

Every value gets one of four kinds, equation by equation: `EACH`, stacked along axis 0, its n-th slice made from n-th
slices alone; `SAME`, broadcast along axis 0, all its slices equal; `OTHER`, made from nothing stacked; `MIXED`, made
across layers, or not known to be otherwise.
"""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal

from refgrad.cost.primitives.elementwise import RULES as ELEMENTWISE
from refgrad.cost.primitives.rule import shape_of
from refgrad.train.dependence import called

EACH, SAME, OTHER, MIXED = "each", "same", "other", "mixed"
REDUCTIONS = ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or", "argmax", "argmin")
ALIKE = {*ELEMENTWISE, "copy"}


def kinds(program: ClosedJaxpr, inputs: Sequence[str]) -> list[str]:
    """The kind of each output, from those of the inputs."""
    jaxpr = program.jaxpr
    env = dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> str:
        return OTHER if isinstance(atom, Literal) else env.get(atom, OTHER)

    for eqn in jaxpr.eqns:
        env.update(zip(eqn.outvars, _equation(eqn, [read(v) for v in eqn.invars]), strict=True))
    return [read(v) for v in jaxpr.outvars]


def _equation(eqn: JaxprEqn, given: list[str]) -> Sequence[str]:
    if inner := called(eqn):
        return kinds(inner, given)
    name, p = eqn.primitive.name, eqn.params
    if name == "cond" and given[0] == OTHER:
        branches = [kinds(branch, given[1:]) for branch in p["branches"]]
        return [_together(found) for found in zip(*branches, strict=True)]
    if MIXED in given:
        return [MIXED] * len(eqn.outvars)
    if name == "broadcast_in_dim":
        return [_broadcast(eqn, given[0])]
    if name in ALIKE:
        shapes = [shape_of(v) for v in eqn.invars]
        return [_together([k for k, shape in zip(given, shapes, strict=True) if shape])] * len(eqn.outvars)
    if EACH in given:
        return [EACH if len(given) == 1 and _keeps_first_axis(name, eqn) else MIXED] * len(eqn.outvars)
    return [OTHER] * len(eqn.outvars)


def _together(found: Sequence[str]) -> str:
    """The kind of what is made element by element from arrays of these kinds and one shape; scalars left out."""
    if MIXED in found or {EACH, OTHER} <= set(found):
        return MIXED
    if EACH in found:
        return EACH
    return SAME if set(found) == {SAME} else OTHER


def _broadcast(eqn: JaxprEqn, kind: str) -> str:
    into, shape = eqn.params["broadcast_dimensions"], shape_of(eqn.invars[0])
    if kind == OTHER:
        return OTHER if 0 in into and shape[into.index(0)] > 1 else SAME
    kept = bool(into) and into[0] == 0 and shape[0] == eqn.params["shape"][0]
    return kind if kept else MIXED if kind == EACH else OTHER


def _keeps_first_axis(name: str, eqn: JaxprEqn) -> bool:
    """Whether the result's n-th slice along axis 0 is made from the operand's n-th."""
    p, operand, result = eqn.params, shape_of(eqn.invars[0]), shape_of(eqn.outvars[0])
    if name in REDUCTIONS:
        return 0 not in p["axes"]
    if name == "reshape":
        return bool(result) and p["dimensions"] is None and result[0] == operand[0]
    if name == "transpose":
        return p["permutation"][0] == 0
    return name == "squeeze" and 0 not in p["dimensions"]


def alike(stacked: ClosedJaxpr, sliced: ClosedJaxpr) -> bool:
    """Whether two programs differ in shapes alone: the same primitives in the same order, with the same numbers."""
    for one, other in zip_longest(stacked.jaxpr.eqns, sliced.jaxpr.eqns):
        if one is None or other is None or one.primitive is not other.primitive:
            return False
        numbers = ([v.val if isinstance(v, Literal) else np.nan for v in eqn.invars] for eqn in (one, other))
        if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip_longest(*numbers, fillvalue=np.inf)):
            return False
        inside = called(one), called(other)
        if inside[0] and inside[1]:
            if not alike(inside[0], inside[1]):
                return False
        elif not all(_same(one.params[key], other.params[key]) for key in one.params if not _shape(one, key)):
            return False
    return all(np.array_equal(a, b) for a, b in zip_longest(stacked.consts, sliced.consts))


def _shape(eqn: JaxprEqn, parameter: str) -> bool:
    """Whether the equation's parameter is the shape of what it makes of an operand, which changes with the stack."""
    return (eqn.primitive.name, parameter) in {("broadcast_in_dim", "shape"), ("reshape", "new_sizes")}


def _same(one: Any, other: Any) -> bool:
    """Whether two parameters of an equation are equal, programs among them alike."""
    if isinstance(one, ClosedJaxpr):
        return alike(one, other)
    if isinstance(one, tuple) and one and isinstance(one[0], ClosedJaxpr):  # the branches of a cond
        return all(map(alike, one, other))
    return bool(np.array_equal(one, other)) if isinstance(one, np.ndarray) else bool(one == other)
