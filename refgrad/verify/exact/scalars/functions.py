"""Functions of scalars: applied to entries of arrays, with one-sided derivatives, and the way back of cotangents."""

import contextlib
import dataclasses
import functools
import operator
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np
from flint import acb, arb, ctx

from refgrad.verify.exact.scalars.germ import (
    ABSENT,
    CORNER,
    MINUS,
    ONE,
    PRECISION,
    TIE,
    ZERO,
    Undecided,
    limit,
    slope,
    variable,
)


@contextlib.contextmanager
def terms(n: int) -> Iterator[None]:
    """Cut series at n terms for the time of the block."""
    before, ctx.cap = ctx.cap, n
    try:
        yield
    finally:
        ctx.cap = before


finite = operator.methodcaller("is_finite")


@dataclasses.dataclass(frozen=True)
class Function:
    """A function of scalars, and how cotangents return through it on balls."""

    value: Callable[..., Any]

    def __call__(self, *xs: Any) -> Any:
        """Return the function of scalars."""
        return self.value(*xs)

    def each(self, *xs: np.ndarray) -> np.ndarray:
        """Return the function of each entry of arrays."""
        return np.asarray(np.frompyfunc(self, len(xs), 1)(*xs), object)

    def pull(self, i: int, ct: np.ndarray, y: np.ndarray, *xs: np.ndarray) -> np.ndarray:
        """Return the cotangent of argument i, given that of the result y."""
        return np.asarray(np.frompyfunc(functools.partial(self._pull, i), len(xs) + 2, 1)(ct, y, *xs), object)

    def _pull(self, i: int, ct: Any, y: Any, *xs: Any) -> Any:
        if ct is ABSENT or isinstance(ct, Undecided):
            return ct
        back = self.pull_one(i, ct, y, *xs) if y.is_finite() else y
        if not back.is_finite():  # 0 times an infinite slope is not 0
            why = back.why if isinstance(back, Undecided) else TIE
            return ZERO if why == CORNER and ct.is_zero() else Undecided(PRECISION if why == PRECISION else TIE)
        return back.real if isinstance(back, acb) and isinstance(xs[i], arb) else back

    def pull_one(self, i: int, ct: Any, y: Any, *xs: Any) -> Any:
        """Return the cotangent of argument i of one entry."""
        del y
        return ct * self.partial(i, *xs)

    def tangent(self, apply: Callable, tangents: Sequence[Any], y: Any, *xs: Any) -> Any:
        """Return the derivative along the tangents of the operands; `apply` applies a function to arrays."""
        del y
        parts = [apply(Partial(self, i), *xs) * t for i, t in enumerate(tangents) if t is not None]
        return functools.reduce(operator.add, parts)

    def partial(self, i: int, *xs: Any) -> Any:
        """Return the partial derivative in argument i: that from either side, undecided where the two differ."""
        if not xs[i].is_finite():
            return Undecided(TIE)
        sides = []
        with terms(2):
            for step in (ONE, MINUS):
                y = self(*xs[:i], variable(xs[i], step), *xs[i + 1 :])
                end = limit(y)
                if not end.is_finite():
                    return end
                sides.append((end, slope(y) * step))
        (below, left), (above, right) = sides
        if not (left.is_finite() and right.is_finite() and (below - above).contains(0)):
            return Undecided(TIE)
        return left if (left - right).contains(0) else Undecided(CORNER)

    def second(self, i: int, j: int, *xs: Any) -> Any:
        """Return the second partial derivative in arguments i and j."""
        if i == j:
            return self._bend({i}, *xs)
        return (self._bend({i, j}, *xs) - self._bend({i}, *xs) - self._bend({j}, *xs)) / 2

    def _bend(self, moving: Collection[int], *xs: Any) -> Any:
        """Return the second derivative along some arguments at once, undecided where the two sides differ."""
        sides = []
        with terms(3):
            for step in (ONE, MINUS):
                y = self(*(variable(x, step) if k in moving else x for k, x in enumerate(xs)))
                sides.append((limit(y), slope(y) * step, slope(y, 2)))
        if not all(c.is_finite() for side in sides for c in side):
            return Undecided(TIE)
        agree = all((below - above).contains(0) for below, above in zip(*sides, strict=True))
        return sides[0][2] if agree else Undecided(TIE)


class Partial(Function):
    """The partial derivative of a function in one argument."""

    def __init__(self, f: Function, i: int) -> None:
        super().__init__(functools.partial(f.partial, i))
        vars(self).update(f=f, i=i)

    f: Function
    i: int

    def partial(self, i: int, *xs: Any) -> Any:
        """Return a second partial derivative."""
        return self.f.second(self.i, i, *xs)
