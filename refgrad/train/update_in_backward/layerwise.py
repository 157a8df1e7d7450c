"""A proof that a program treats each layer of its stacked arrays alone, and so can run on one layer's slice.

Every value gets one of four kinds, equation by equation. `EACH` is stacked along axis 0, and its n-th slice depends on
n-th slices alone. `SAME` is broadcast along axis 0: all its slices are equal. `OTHER` depends on nothing stacked.
`MIXED` depends on several layers, or is not known to be otherwise.
"""

from collections.abc import Sequence

from jax.extend.core import ClosedJaxpr, JaxprEqn

from refgrad.cost.primitives.elementwise import RULES as ELEMENTWISE
from refgrad.jaxpr.analysis import Forward
from refgrad.jaxpr.avals import shape_of
from refgrad.jaxpr.calls import Form

EACH, SAME, OTHER, MIXED = "each", "same", "other", "mixed"
REDUCTIONS = ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or", "argmax", "argmin")
ALIKE = {*ELEMENTWISE, "copy"}


def kinds(program: ClosedJaxpr, inputs: Sequence[str]) -> list[str]:
    """Return the kind of each output, given the kinds of the inputs."""
    return _Kinds().run(program, inputs)


class _Kinds(Forward[str]):
    unknown = OTHER
    follows = frozenset({Form.CALL, Form.BRANCHES})

    def join(self, one: str, other: str) -> str:
        return _elementwise([one, other])

    def under(self, condition: str, result: str) -> str:
        return result if condition == OTHER else MIXED

    def equation(self, eqn: JaxprEqn, entering: list[str]) -> Sequence[str]:
        name = eqn.primitive.name
        if MIXED in entering:
            return [MIXED] * len(eqn.outvars)
        if name == "broadcast_in_dim":
            return [_broadcast(eqn, entering[0])]
        if name in ALIKE:
            shapes = [shape_of(v) for v in eqn.invars]
            kind = _elementwise([kind for kind, shape in zip(entering, shapes, strict=True) if shape])
            return [kind] * len(eqn.outvars)
        if EACH in entering:
            alone = len(entering) == 1 and _keeps_first_axis(name, eqn)
            return [EACH if alone else MIXED] * len(eqn.outvars)
        return [OTHER] * len(eqn.outvars)


def _elementwise(operands: Sequence[str]) -> str:
    """Return the kind of an element-wise result of arrays of these kinds and one shape, scalars left out."""
    if MIXED in operands or {EACH, OTHER} <= set(operands):
        return MIXED
    if EACH in operands:
        return EACH
    return SAME if set(operands) == {SAME} else OTHER


def _broadcast(eqn: JaxprEqn, kind: str) -> str:
    into, shape = eqn.params["broadcast_dimensions"], shape_of(eqn.invars[0])
    if kind == OTHER:
        return OTHER if 0 in into and shape[into.index(0)] > 1 else SAME
    kept = bool(into) and into[0] == 0 and shape[0] == eqn.params["shape"][0]
    return kind if kept else MIXED if kind == EACH else OTHER


def _keeps_first_axis(name: str, eqn: JaxprEqn) -> bool:
    """Return True if the result's n-th slice along axis 0 depends on the operand's n-th alone."""
    p, operand, result = eqn.params, shape_of(eqn.invars[0]), shape_of(eqn.outvars[0])
    if name in REDUCTIONS:
        return 0 not in p["axes"]
    if name == "reshape":
        return bool(result) and p["dimensions"] is None and result[0] == operand[0]
    if name == "transpose":
        return p["permutation"][0] == 0
    return name == "squeeze" and 0 not in p["dimensions"]
