"""Truth values of scalars, and choices by them: a cotangent that a change at once would spoil is undecided."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from refgrad.verify.exact.scalars.functions import Function
from refgrad.verify.exact.scalars.germ import ABSENT, NAN, ONE, TIE, Undecided, compare, same


class Decision(Function):
    """A truth value of scalars or of other truth values: the cotangent of one that changes at once is undecided."""

    def tangent(self, apply: Callable, tangents: Sequence[Any], y: Any, *xs: Any) -> Any:
        """Return a mark where the truth value changes at once along a direction: an undecided scalar, else absent."""
        marks = (x.still() if t is None else t for t, x in zip(tangents, xs, strict=True))
        return apply(Held(functools.partial(self._mark, len(xs))), y, *xs, *marks)

    def _mark(self, count: int, y: Any, *operands: Any) -> Any:
        xs, marks = operands[:count], operands[count:]
        cts = (m if isinstance(x, bool) else ONE for m, x in zip(marks, xs, strict=True))
        backs = (self._pull(i, ct, y, *xs) for i, ct in enumerate(cts))
        return next((b for b in backs if isinstance(b, Undecided)), ABSENT)

    def _pull(self, i: int, ct: Any, y: Any, *xs: Any) -> Any:
        if isinstance(xs[i], bool):
            return ABSENT if self(*xs[:i], not xs[i], *xs[i + 1 :]) is y else ct
        if ct is ABSENT or len(xs) == 1:
            return ABSENT
        a, b = xs
        equal = False if a is b or not (a.is_finite() and b.is_finite()) else same(a, b)
        return equal if isinstance(equal, Undecided) else Undecided(TIE) if equal else ABSENT


class Held(Function):
    """A function that is held: no cotangent returns through it, and no tangent passes."""

    def tangent(self, apply: Callable, tangents: Sequence[Any], y: Any, *xs: Any) -> Any:
        """Return None."""
        del apply, tangents, y, xs

    def _pull(self, i: int, ct: Any, y: Any, *xs: Any) -> Any:
        del i, ct, y, xs
        return ABSENT


class Marked(Function):
    """A truth value, undecided where a mark is; a cotangent returns to the truth value alone."""

    def _pull(self, i: int, ct: Any, y: Any, *xs: Any) -> Any:
        del y, xs
        return ABSENT if i else ct


def by_sign(holds: Callable[[Any], bool]) -> Decision:
    """Return the comparison of two scalars that holds for some signs of their difference."""

    def value(a: Any, b: Any) -> Any:
        s = compare(a, b)
        return s if isinstance(s, Undecided) else bool(holds(s))

    return Decision(value)


def equal(a: Any, b: Any) -> Any:
    """Return True where two scalars or truth values are equal."""
    if isinstance(a, bool) and isinstance(b, bool):
        return a is b
    return same(a, b)


def negated(x: Any) -> Any:
    """Return the negation of a truth value."""
    return x if isinstance(x, Undecided) else not x


def conjunction(a: Any, b: Any) -> Any:
    """Return True where both truth values are True."""
    if a is False or b is False:
        return False
    return next((x for x in (a, b) if isinstance(x, Undecided)), True)


def finite(x: Any) -> Any:
    """Return True for a finite scalar."""
    return x if isinstance(x, Undecided) else x.is_finite()


def choose(which: Any, *cases: Any) -> Any:
    """Return one of the scalars, as the truth value says."""
    if isinstance(which, Undecided):
        return cases[0] if all(c is cases[0] for c in cases) else which
    return cases[int(which)]


class Select(Function):
    """One of several scalars by a truth value."""

    def tangent(self, apply: Callable, tangents: Sequence[Any], y: Any, *xs: Any) -> Any:
        """Return the tangent of the scalar that is chosen, undecided where that changes at once."""
        del y
        moving = (x.still() if t is None else t for t, x in zip(tangents[1:], xs[1:], strict=True))
        which, mark = xs[0], tangents[0]
        if mark is not None:
            which = apply(Marked(lambda x, m: m if isinstance(m, Undecided) else x), which, mark)
        return apply(self, which, *moving)

    def _pull(self, i: int, ct: Any, y: Any, *xs: Any) -> Any:
        del y
        alike = all(c is xs[1] for c in xs[1:])
        if ct is ABSENT or (i == 0 and alike):
            return ABSENT
        if i == 0:  # a cotangent of any value finds the ties behind the truth value
            return ONE
        if isinstance(xs[0], Undecided) and not alike:
            return Undecided(TIE)
        return ct if i == (1 if alike else xs[0] + 1) else ABSENT


def larger(a: Any, b: Any) -> Any:
    """Return the larger of two scalars, NaN where one is."""
    s = compare(a, b)
    return s if isinstance(s, Undecided) else NAN if s != s else a if s >= 0 else b


def smaller(a: Any, b: Any) -> Any:
    """Return the smaller of two scalars, NaN where one is."""
    s = compare(a, b)
    return s if isinstance(s, Undecided) else NAN if s != s else a if s <= 0 else b
