"""Values numbered: equations that make a value which an earlier equation has made already.

Two variables have one number where the same primitives, with the same parameters, make them of variables with the same
numbers, however far apart they stand. A scan's slice of what an earlier scan has stacked is what that one had at the
same trip, so that the two bodies of a differentiated scan share their numbers.
"""

import itertools
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, NamedTuple

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from refgrad.jaxpr.calls import Body, Form, bodies_of
from refgrad.jaxpr.programs import is_backward, source_of
from refgrad.jaxpr.versions import opened

_SAME = ("optimization_barrier", "name", "stop_gradient", "copy_p")


class Repeated(NamedTuple):
    """An equation of a transpose that makes a value again, and the line of code that it comes from."""

    eqn: JaxprEqn
    source: str


def repeated_in_backward(program: ClosedJaxpr | Jaxpr) -> Iterator[Repeated]:
    """Yield the equations of a program's backward part that make a value again which was made before them."""
    numbering = _Numbering()
    numbering.run(program, [numbering.fresh() for _ in opened(program).invars], "", False)
    yield from numbering.repeated


class _Numbering:
    def __init__(self) -> None:
        self.repeated: list[Repeated] = []
        self._count = itertools.count()
        self._numbers: dict[Hashable, int] = {}
        self._stacked: dict[int, int] = {}

    def fresh(self) -> int:
        """Return a number that nothing else has."""
        return next(self._count)

    def run(self, program: ClosedJaxpr | Jaxpr, entering: Sequence[int], caller: str, backward: bool) -> list[int]:
        """Return the numbers of the results, from those of the arguments."""
        jaxpr = opened(program)
        env: dict[Any, int] = dict(zip(jaxpr.invars, entering, strict=True))

        def read(v: Any) -> int:
            if isinstance(v, Literal):
                return self._number(("literal", str(v.aval), str(v.val)))[0]
            return env[v] if v in env else self._number(("constant", id(v)))[0]

        for eqn in jaxpr.eqns:
            results = self._equation(eqn, list(map(read, eqn.invars)), caller, backward or is_backward(eqn))
            env.update(zip(eqn.outvars, results, strict=True))
        return list(map(read, jaxpr.outvars))

    def _equation(self, eqn: JaxprEqn, operands: list[int], caller: str, backward: bool) -> list[int]:
        if eqn.primitive.name in _SAME and len(operands) == len(eqn.outvars):
            return operands
        bodies = bodies_of(eqn)
        if bodies is not None:
            source = source_of(eqn) or caller
            if bodies.form in (Form.CALL, Form.DEVICES):
                return self._called(bodies.all[0], operands, source, backward)
            if bodies.form is Form.SCAN:
                return self._scan(bodies.all[0], operands, source, backward)
            return [self.fresh() for _ in eqn.outvars]
        if eqn.effects:
            return [self.fresh() for _ in eqn.outvars]
        key = eqn.primitive.name, _parameters(eqn), tuple(operands)
        found = [self._number((*key, i)) for i in range(len(eqn.outvars))]
        if backward and found and all(known for _, known in found):
            self.repeated.append(Repeated(eqn, source_of(eqn) or caller))
        return [number for number, _ in found]

    def _called(self, body: Body, operands: list[int], source: str, backward: bool) -> list[int]:
        entering = [self.fresh() if i is None else operands[i] for i in body.inputs]
        return self.run(body.jaxpr, entering, source, backward)

    def _scan(self, body: Body, operands: list[int], source: str, backward: bool) -> list[int]:
        first_slice = body.carry_start + body.carry
        carry = [self.fresh() for _ in range(body.carry)]
        slices = [self._slice(n) for n in operands[first_slice:]]
        results = self.run(body.jaxpr, [*operands[: body.carry_start], *carry, *slices], source, backward)
        return [*(self.fresh() for _ in carry), *map(self._stack, results[body.carry :])]

    def _slice(self, number: int) -> int:
        return self._stacked[number] if number in self._stacked else self._number(("slice", number))[0]

    def _stack(self, number: int) -> int:
        stacked, _ = self._number(("stack", number))
        self._stacked[stacked] = number
        return stacked

    def _number(self, key: Hashable) -> tuple[int, bool]:
        """Return the number of what the key says, and whether that was known."""
        known = key in self._numbers
        if not known:
            self._numbers[key] = self.fresh()
        return self._numbers[key], known


def _parameters(eqn: JaxprEqn) -> Hashable:
    parameters = tuple(eqn.params.items())
    try:
        hash(parameters)
    except TypeError:
        return str(parameters)
    return parameters
