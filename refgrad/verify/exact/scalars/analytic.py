"""Analytic functions of scalars: on balls by flint, on germs by their Taylor series.

A function is a row of data: its value on balls, its derivative as an expression in flint's power series (None: Taylor
coefficients come from values on a circle, with Cauchy's bound), its limits at ±∞, and an expression of it that holds
where it is not analytic.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable
from typing import Any

from flint import acb, acb_series, arb, arb_series, ctx

from refgrad.verify.exact.scalars.functions import Function, terms
from refgrad.verify.exact.scalars.germ import (
    CONSTANT,
    ESSENTIAL,
    EXACT,
    FLAT,
    NAN,
    ORDER,
    PRECISION,
    TIE,
    ZERO,
    Germ,
    Undecided,
    limit,
)

POINTS = 16  # on the circle that gives Taylor coefficients


@dataclasses.dataclass(frozen=True)
class Analytic(Function):
    """A function that is analytic wherever its Taylor coefficients are finite."""

    derivative: Callable[..., Any] | None = None  # in the last argument
    at_infinity: tuple[Any, Any] = (NAN, NAN)
    elsewhere: Callable[..., Any] | None = None
    poles: Any = NAN  # the value at an exact singular point
    edges: tuple[tuple[int, ...], ...] = ()  # of each argument: where branches start, and its domain ends

    def __call__(self, *xs: Any) -> Any:
        moving = []
        for i, x in enumerate(xs):
            if isinstance(x, Undecided):
                return x
            if isinstance(x, Germ):
                moving.append(i)
        if not moving:
            y = self.value(*xs)
            return y if y.is_finite() else self._singular(y, *xs)
        if len(moving) > 1:
            return self._together(moving, xs)
        (i,) = moving
        return self._compose(i, xs)

    def _singular(self, y: Any, *xs: Any) -> Any:
        """Return the value at balls where flint's is not finite: of the extended reals, NaN, or undecided."""
        x = xs[-1]
        if any(isinstance(x, arb) and x.is_nan() for x in xs):
            return NAN
        if x.is_exact() and not x.is_finite():
            return self.at_infinity[int(x > 0)] if isinstance(x, arb) else NAN
        if isinstance(y, arb) and not y.is_nan():
            return Undecided(PRECISION)  # too large for flint's exponents
        if isinstance(x, arb):
            with contextlib.suppress(TypeError, AttributeError):
                beyond = self.value(*xs[:-1], acb(x))
                if beyond.is_finite() and not beyond.imag.contains(0):
                    return NAN  # a real argument outside the real domain
        if not all(x.is_exact() for x in xs):
            return Undecided(PRECISION)
        return self.poles if len(xs) == 1 else Undecided(ESSENTIAL)

    def _compose(self, i: int, xs: tuple) -> Any:
        """Return the function of one germ, by its Taylor series around the limit."""
        g = xs[i]
        rest = {k: c for k, c in g.terms.items() if k != CONSTANT}
        if any(k < CONSTANT for k in rest):
            return self._diverging(xs) if i == len(xs) - 1 else Undecided(ESSENTIAL)
        if g.order <= 0:
            return Undecided(ORDER)
        start = g.terms.get(CONSTANT, ZERO)
        small = Germ(rest, g.order)
        if small.lowest == 0:
            return Undecided(ESSENTIAL)  # powers of 1/L
        count = max(1, math.ceil(min(g.order, ctx.cap) / small.lowest))
        coefficients = self.taylor(i, count, *xs[:i], start, *xs[i + 1 :])
        if not all(c.is_finite() for c in coefficients):
            if self.elsewhere is not None:
                return self.elsewhere(*xs)
            value = self(*xs[:i], start, *xs[i + 1 :])
            inside = isinstance(value, Undecided) or value.is_finite() or start.is_exact()
            return Undecided(ESSENTIAL if start.is_exact() else PRECISION) if inside else value
        result: Any = coefficients[-1]
        for c in reversed(coefficients[:-1]):
            result = small * result + c
        return result + Germ({}, min(g.order, count * small.lowest))

    def _diverging(self, xs: tuple) -> Any:
        """Return the function of a germ that goes to ±∞: its limit there, which it approaches as exp(−1/ε) does."""
        g = xs[-1]
        if self.elsewhere is not None and len(xs) == 1:
            return self.elsewhere(g)
        end = limit(g)
        if isinstance(end, Undecided) or g.lowest == 0:
            return end if isinstance(end, Undecided) else Undecided(ESSENTIAL)
        far = self.at_infinity[int(end > 0)] if isinstance(end, arb) else NAN
        return Germ.of({CONSTANT: far}, FLAT) if far.is_finite() else Undecided(ESSENTIAL)

    def _together(self, moving: list[int], xs: tuple) -> Any:
        """Return the function of several germs to first order."""
        starts = tuple(limit(x) for x in xs)
        for x in starts:
            if isinstance(x, Undecided):
                return x
        result = self(*starts)
        orders = []
        for i in moving:
            small = xs[i] - starts[i]
            if isinstance(small, Germ):
                orders.append(min(2 * small.lowest, small.order))
                result = result + small * self.partial(i, *starts)
        return result + Germ({}, min(orders, default=EXACT))

    def taylor(self, i: int, count: int, *xs: Any) -> list[Any]:
        """Return the first Taylor coefficients in argument i; they are not finite where it is not analytic."""
        x, value = xs[i], self.value(*xs)
        if self.derivative is None or i < len(xs) - 1:
            return self._on_a_circle(i, count, xs, value)
        with terms(max(1, count - 1)):
            try:
                derived = self.derivative(*xs[:-1], (arb_series if isinstance(x, arb) else acb_series)([x, 1]))
            except (ValueError, ZeroDivisionError):  # a pole
                return [NAN] * count
        slopes = list(derived.coeffs()) + [ZERO] * count
        if count == 1 and not slopes[0].is_finite():
            return [slopes[0]]
        return [value, *(slopes[k - 1] / k if k > 1 else slopes[0] for k in range(1, count))]

    def _on_a_circle(self, i: int, count: int, xs: tuple, value: Any) -> list[Any]:
        """Return Taylor coefficients from values on a circle, with Cauchy's bound on what they leave out."""
        bits, real = ctx.prec, isinstance(xs[i], arb)
        shrink = -(-bits // POINTS) + 1
        clear = [float(abs(x - edge).lower()) for x, edges in zip(xs, self.edges, strict=False) for edge in edges]
        if 0 in clear:
            return [NAN] * count
        radius = 2.0 ** math.floor(min([-3.0, *(math.log2(c) - 2 for c in clear)]))

        def at(z: Any) -> Any:
            return self.value(*(acb(x) for x in xs[:i]), z, *(acb(x) for x in xs[i + 1 :]))

        for _ in range(8):
            bound = abs(at(acb(xs[i]) + acb(arb(0, radius), arb(0, radius)))).upper()
            if bound.is_finite():
                break
            radius /= 64
        else:
            return [NAN] * count
        step = arb(radius) / arb(2) ** shrink
        with ctx.workprec(bits + count * (shrink + 8 - int(math.log2(radius)))):
            roots = [acb(arb(2 * k) / POINTS).exp_pi_i() for k in range(POINTS)]
            values = [at(acb(xs[i]) + step * w) for w in roots]
            found = [value]
            for k in range(1, count):
                total = sum((v * roots[-j * k % POINTS] for j, v in enumerate(values)), acb(0)) / POINTS / step**k
                beyond = (2 * bound / arb(2) ** (shrink * POINTS) / arb(radius) ** k).upper()
                found.append((total.real if real else total) + arb(0, beyond))
        return found

    def partial(self, i: int, *xs: Any) -> Any:
        """Return the partial derivative in argument i, which exists where the function is analytic."""
        x = xs[i]
        if not x.is_finite():  # as exp at −∞, of a masked entry
            return ZERO if isinstance(x, arb) and not x.is_nan() else Undecided(TIE)
        if self.derivative is None or i < len(xs) - 1:
            return self.taylor(i, 2, *xs)[1]
        try:
            return self.derivative(*xs)
        except ZeroDivisionError:
            return Undecided(TIE)

    def second(self, i: int, j: int, *xs: Any) -> Any:
        """Return the second partial derivative in arguments i and j."""
        x = xs[i]
        if i != j:
            return super().second(i, j, *xs)
        if not x.is_finite():
            return ZERO if isinstance(x, arb) and not x.is_nan() else Undecided(TIE)
        return self.taylor(i, 3, *xs)[2] * 2
