"""How many trips a `while` takes, where its program tells: two counters, or a counter and a constant, that meet.

Each side of the comparison starts at a known integer and moves by a known one (a constant by 0), so that their
difference is one counter that is compared with 0. Known are literals, closed-over concrete integers, and what calls
hand on of them; an argument of the program never is, whatever its value.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from refgrad.cost.constants import Constants, Known
from refgrad.cost.hlo.trips import trips_until
from refgrad.cost.primitives.rule import Body, dtype_of, shape_of

_COMPARISONS = ("lt", "le", "gt", "ge", "ne")


class _Counter(NamedTuple):
    """An integer that starts at `first` and moves by `step` each trip."""

    first: int
    step: int


def while_trips(eqn: JaxprEqn, body: Body, of: Callable[[Any], Known | None]) -> int | None:
    """Runs of `body`, the condition or the body of a `while`: n + 1 of the one, n of the other; None if unknown.

    `of` says what is known of the equation's operands.
    """
    if eqn.primitive.name != "while":
        return None
    n = _trips(eqn, of)
    if n is None:
        return None
    return n + 1 if body.jaxpr is eqn.params["cond_jaxpr"] else n


def _trips(eqn: JaxprEqn, of: Callable[[Any], Known | None]) -> int | None:
    p = eqn.params
    n_cond, n_body = p["cond_nconsts"], p["body_nconsts"]
    known = [of(v) for v in eqn.invars]
    condition = _Inside(p["cond_jaxpr"], known[:n_cond])
    body = _Inside(p["body_jaxpr"], known[n_cond : n_cond + n_body])
    first = known[n_cond + n_body :]
    if condition.is_false():
        return 0
    test = condition.maker(condition.jaxpr.outvars[0])
    if test is None or test.primitive.name not in _COMPARISONS:
        return None
    left, right = (_counter(condition, body, first, v) for v in test.invars)
    if left is None or right is None:
        return None
    n = trips_until(test.primitive.name.upper(), left.first - right.first, left.step - right.step)
    limits = jnp.iinfo(dtype_of(test.invars[0]))
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

    def __init__(self, closed: ClosedJaxpr, known: list[Known | None]):
        self.jaxpr: Jaxpr = closed.jaxpr
        self.carries = self.jaxpr.invars[len(known) :]
        self._makers = {v: eqn for eqn in self.jaxpr.eqns for v in eqn.outvars}
        self._constants = Constants(self.jaxpr, [*known, *(None for _ in self.carries)], closed.consts)

    def maker(self, v: Any) -> JaxprEqn | None:
        """The equation that makes the variable; None for arguments and literals."""
        return None if isinstance(v, Literal) else self._makers.get(v)

    def integer(self, v: Any) -> int | None:
        """The variable's value where it is one known integer."""
        return integer(self._constants.of(v)) if _is_integer(v) else None

    def is_false(self) -> bool:
        """Whether the (first) result is False before anything runs."""
        known = self._constants.of(self.jaxpr.outvars[0])
        return known is not None and known.value is False

    def origin(self, v: Any) -> Any:
        """The variable of which this one is a copy, perhaps in a wider integer type."""
        while (eqn := self.maker(v)) is not None and _widens(eqn):
            v = eqn.invars[0]
        return v

    def step(self, carry: int) -> int | None:
        """What one trip of the body adds to the carry: 0 where it is handed on, None where it is no known integer."""
        before, after = self.carries[carry], self.origin(self.jaxpr.outvars[carry])
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
    return shape_of(v) == () and getattr(dtype_of(v), "kind", "") in ("i", "u")


def _widens(eqn: JaxprEqn) -> bool:
    """Whether it hands on an integer, in a type that holds all of its values."""
    if eqn.primitive.name not in ("convert_element_type", "copy"):
        return False
    before, after = eqn.invars[0], eqn.outvars[0]
    return _is_integer(before) and _is_integer(after) and np.can_cast(dtype_of(before), dtype_of(after))
