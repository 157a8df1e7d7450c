"""Functions whose cotangents are expressions, in which scalars, object arrays and `Array` take the same operators."""

import functools
import operator
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from refgrad.verify.exact.scalars import elementary as fn
from refgrad.verify.exact.scalars.functions import Function, finite
from refgrad.verify.exact.scalars.germ import NAN, ZERO, Undecided


class Arithmetic(Function):
    """A function whose cotangents are expressions (ct, result, operands): its slopes too."""

    def __init__(self, value: Callable[..., Any], *pulls: Callable[..., Any], whole: bool = False) -> None:
        super().__init__(value)
        vars(self).update(pulls=pulls, whole=whole)

    pulls: tuple[Callable[..., Any], ...]
    whole: bool  # True where the value is an expression that holds for whole arrays too

    def each(self, *xs: np.ndarray) -> np.ndarray:
        """Return the function of each entry of arrays."""
        return np.asarray(self.value(*xs), object) if self.whole else super().each(*xs)

    def pull(self, i: int, ct: np.ndarray, y: np.ndarray, *xs: np.ndarray) -> np.ndarray:
        """Return the cotangent of argument i: at once where it is finite everywhere."""
        back = np.asarray(self.pulls[i](ct, y, *xs), object)
        return back if all(map(finite, back.ravel())) else super().pull(i, ct, y, *xs)

    def pull_one(self, i: int, ct: Any, y: Any, *xs: Any) -> Any:
        """Return the cotangent of argument i of one entry."""
        return self.pulls[i](ct, y, *xs)

    def tangent(self, apply: Callable, tangents: Sequence[Any], y: Any, *xs: Any) -> Any:
        """Return the derivative along the tangents of the operands: by the same expressions."""
        del apply
        parts = [pull(t, y, *xs) for pull, t in zip(self.pulls, tangents, strict=True) if t is not None]
        return functools.reduce(operator.add, parts)


class Linear(Arithmetic):
    """A linear function, over the reals: it is its own derivative."""

    def tangent(self, apply: Callable, tangents: Sequence[Any], y: Any, *xs: Any) -> Any:
        """Return the function of the tangents."""
        del y
        return apply(self, *(x.still() if t is None else t for t, x in zip(tangents, xs, strict=True)))


def _subtract(a: Any, b: Any) -> Any:
    if a is b and not isinstance(a, Undecided):
        return ZERO if a.is_finite() else NAN
    return a - b


def power_of(r: Fraction) -> Function:
    """The function x^r, whose derivative is r·y/x, or r·x^(r−1) for a positive integer r."""
    factor = fn.ball(r)
    if r.denominator == 1 and r >= 0:
        n = int(r)
        return Arithmetic(lambda x: fn.raised(x, r), lambda ct, y, x: ct * (x ** (n - 1) * n) if n else ct * ZERO)
    return Arithmetic(lambda x: fn.raised(x, r), lambda ct, y, x: ct * y / x * factor)


ADD = Linear(operator.add, lambda ct, *_: ct, lambda ct, *_: ct, whole=True)
SUB = Linear(_subtract, lambda ct, *_: ct, lambda ct, *_: -ct)
NEG = Linear(operator.neg, lambda ct, *_: -ct, whole=True)
MUL = Arithmetic(operator.mul, lambda ct, y, a, b: ct * b, lambda ct, y, a, b: ct * a, whole=True)
DIV = Arithmetic(fn.divide, lambda ct, y, a, b: ct / b, lambda ct, y, a, b: -(ct * y) / b)
SQUARE = Arithmetic(lambda x: x * x, lambda ct, y, x: ct * x * 2, whole=True)
