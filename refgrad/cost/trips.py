"""Trip counts of `while` loops whose program tells them: two counters, or a counter and a constant, that meet.

Each side of the comparison starts at a known integer and moves by a known one (a constant by 0), so that their
difference is one counter that is compared with 0. Known are literals, closed-over concrete integers, and what calls
hand on of them; an argument of the program is not, even if its value is known.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn, Literal

from refgrad.cost.constants import NEUTRAL, Constants, Known
from refgrad.cost.hlo.trips import trips_until
from refgrad.cost.primitives import price
from refgrad.cost.primitives.rule import Programs
from refgrad.jaxpr.avals import dtype_of, shape_of
from refgrad.jaxpr.calls import Bodies, Body, Form
from refgrad.jaxpr.programs import makers
from refgrad.jaxpr.versions import opened

_COMPARISONS = ("lt", "le", "gt", "ge", "ne")


class _Counter(NamedTuple):
    """An integer that starts at `first` and moves by `step` each trip."""

    first: int
    step: int


def trips_of(eqn: JaxprEqn, bodies: Bodies, body: Body, facts: Constants) -> int | None:
    """Return how often an equation runs one of its bodies; None where that is unknown.

    The condition of a `while` runs once more than its body. `facts` are those of the program that holds it.
    """
    if bodies.form is not Form.WHILE:
        return body.trips
    test, *steps = bodies.all
    if steps[0].trips is None:
        n = _while_trips(test, steps[0], [facts.of(v) for v in eqn.invars], facts)
    else:  # variants of its body, each at some of its trips
        n = sum(step.trips or 0 for step in steps) if body is test else body.trips
    return n + 1 if n is not None and body is test else n


def _while_trips(test: Body, body: Body, known: list[Known | None], facts: Constants) -> int | None:
    condition, step = _Inside(test, known, facts), _Inside(body, known, facts)
    first = [None if i is None else known[i] for i in body.inputs[body.carry_start :]]
    if condition.is_false():
        return 0
    compared = condition.maker(condition.origin(condition.result(0)))
    if compared is None or compared.primitive.name not in _COMPARISONS:
        return None
    left, right = (_counter(condition, step, first, v) for v in compared.invars)
    if left is None or right is None:
        return None
    n = trips_until(compared.primitive.name.upper(), left.first - right.first, left.step - right.step)
    limits = jnp.iinfo(dtype_of(compared.invars[0]))
    ends = [] if n is None else [side.first + n * side.step for side in (left, right)]
    return n if all(limits.min <= end <= limits.max for end in ends) else None


def _counter(condition: "_Inside", body: "_Inside", first: list[Known | None], v: Any) -> _Counter | None:
    """One side of the comparison; None where it is neither a constant nor a carry that moves by one."""
    value = condition.integer(v)
    if value is not None:
        return _Counter(value, 0)
    v = condition.origin(v)
    if v not in condition.carries:
        return None
    carry = condition.carries.index(v)
    start, step = integer(first[carry]), body.step(carry)
    return None if start is None or step is None else _Counter(start, step)


class _Inside:
    """The condition or the body of a `while`: its constants, and which of its variables are carried."""

    def __init__(self, body: Body, known: list[Known | None], facts: Constants):
        self._jaxpr = opened(body.jaxpr)
        self.carries = self._jaxpr.invars[body.carry_start :]
        self._makers = makers(self._jaxpr)
        fixed = [None if i is None else known[i] for i in body.inputs[: body.carry_start]]
        self._constants = Constants(body.jaxpr, [*fixed, *(None for _ in self.carries)], facts.place)

    def result(self, i: int) -> Any:
        """The variable or literal that is the i-th result."""
        return self._jaxpr.outvars[i]

    def maker(self, v: Any) -> JaxprEqn | None:
        """The equation that makes the variable; None for arguments and literals."""
        return None if isinstance(v, Literal) or v not in self._makers else self._makers[v][0]

    def integer(self, v: Any) -> int | None:
        """The variable's value where it is one known integer."""
        return integer(self._constants.of(v)) if _is_integer(v) else None

    def is_false(self) -> bool:
        """Return True if the (first) result is False before anything runs."""
        known = self._constants.of(self.result(0))
        return known is not None and known.value is False

    def origin(self, v: Any) -> Any:
        """The variable of which this one is a copy, perhaps in a wider integer type."""
        while (eqn := self.maker(v)) is not None and (same := self._copied(eqn, v)) is not None:
            v = same
        return v

    def _copied(self, eqn: JaxprEqn, v: Any) -> Any:
        """The operand that an equation hands on as its result v; None where it makes something of it."""
        if _widens(eqn):
            return eqn.invars[0]
        if eqn.primitive.name in NEUTRAL and self._constants.reasons.get(eqn):  # x ∧ True, x + 0, x · 1
            return next((x for x in eqn.invars if self._constants.of(x) is None), None)
        programs = price(eqn)
        if not isinstance(programs, Programs) or programs.bodies.form is not Form.CALL:
            return None
        (called,) = programs.bodies.all
        inner = opened(called.jaxpr)
        result = inner.outvars[eqn.outvars.index(v)]
        return eqn.invars[inner.invars.index(result)] if result in inner.invars else None

    def step(self, carry: int) -> int | None:
        """Return one trip's change of the carry: 0 where it is handed on, None where it is not a known integer."""
        before, after = self.carries[carry], self.origin(self.result(carry))
        if after is before:
            return 0
        eqn = self.maker(after)
        if eqn is None or eqn.primitive.name not in ("add", "sub"):
            return None
        left, right = eqn.invars
        if eqn.primitive.name == "add" and self.origin(right) is before:
            left, right = right, left
        step = self.integer(right)
        if step is None or self.origin(left) is not before:
            return None
        return step if eqn.primitive.name == "add" else -step


def integer(known: Known | None) -> int | None:
    """The integer that is known, if it is one."""
    value = None if known is None else known.value
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _is_integer(v: Any) -> bool:
    return shape_of(v) == () and getattr(dtype_of(v), "kind", "") in ("b", "i", "u")


def _widens(eqn: JaxprEqn) -> bool:
    """Return True if the equation hands on an integer, in a type that holds all of its values."""
    if eqn.primitive.name not in ("convert_element_type", "copy"):
        return False
    before, after = eqn.invars[0], eqn.outvars[0]
    return _is_integer(before) and _is_integer(after) and np.can_cast(dtype_of(before), dtype_of(after))
