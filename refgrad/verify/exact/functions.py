"""Functions of scalars: on balls by flint, on germs by their Taylor series.

An `Analytic` function is a row of data: its value on balls, its derivative as an expression in flint's power series
(None: Taylor coefficients come from values on a circle, with Cauchy's bound), its limits at ±∞, and an expression of
it that holds where it is not analytic.
"""

import contextlib
import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Collection, Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from flint import acb, acb_series, arb, arb_series, ctx

from refgrad.verify.exact.germ import (
    ABSENT,
    CONSTANT,
    CORNER,
    ESSENTIAL,
    EXACT,
    FLAT,
    INFINITY,
    NAN,
    ONE,
    ORDER,
    PRECISION,
    TIE,
    ZERO,
    Germ,
    Undecided,
    limit,
    sign,
    slope,
    variable,
)

POINTS = 16  # on the circle that gives Taylor coefficients
HALF = arb(0.5)
MINUS = -ONE


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


def logarithm(g: Any) -> Any:
    """Return log g where the limit is 0 or ∞: log c − q·L + log(1 + δ)."""
    lead = g.leading()
    if isinstance(lead, Undecided):
        return lead
    (q, m), c = lead
    if m:
        return Undecided(ESSENTIAL)
    if isinstance(c, arb) and c < 0:
        return NAN
    rest = LOG1P((g.shift(-q) + -c) * (1 / c))
    return rest + Germ({CONSTANT: c.log(), (0, -1): arb(-Fraction(q).numerator) / Fraction(q).denominator})


def exponential(g: Any) -> Any:
    """Return exp g where g diverges: ε^−a where it goes as a·L with an exact a, else what exp is at ±∞."""
    if g.lowest < 0:
        end = limit(g)
        flat = isinstance(end, arb) and end < 0
        return end if isinstance(end, Undecided) else Germ({}, FLAT) if flat else Undecided(ESSENTIAL)
    logs = {k: c for k, c in g.terms.items() if k < CONSTANT}
    a = logs.get((0, -1))
    if a is None or len(logs) > 1 or not a.is_exact():
        return Undecided(ESSENTIAL)
    power = EXP(g + Germ({(0, -1): -a}))
    a = a.real.fmpq()
    q = -Fraction(int(a.numer()), int(a.denom()))
    return power.shift(q) if isinstance(power, Germ) else Germ.of({(q, 0): power})


def raised(x: Any, r: Fraction) -> Any:
    """Return x^r for a rational r."""
    if isinstance(x, Undecided):
        return x
    if not isinstance(x, Germ):
        return _power(x, r)
    lead = x.leading()
    if isinstance(lead, Undecided) and r.denominator == 1 and r >= 0:
        y: Any = ONE
        for bit in f"{int(r):b}":
            y = y * y * x if bit == "1" else y * y
        return y
    if isinstance(lead, Undecided):
        return lead
    (q, m), c = lead
    head = _power(c, r)
    if not isinstance(head, Undecided) and head.is_finite():
        scaled = Germ.of({(k[0] - q, k[1] - m): v / c for k, v in x.terms.items()} | {CONSTANT: ONE}, x.order - q)
        root = Analytic(lambda y: _power(y, r), derivative=lambda s: _rational(s, r - 1) * ball(r))
        y = root(scaled) * head
        whole = Fraction(q) * r
        terms = y.terms if isinstance(y, Germ) else {CONSTANT: y}
        order = y.order if isinstance(y, Germ) else EXACT
        moved = (int(whole) if whole.denominator == 1 else whole), m * r
        return Germ.of({(k[0] + moved[0], k[1] + moved[1]): v for k, v in terms.items()}, order + moved[0])
    return head


def ball(r: Fraction) -> arb:
    """Return a rational number as a ball."""
    return arb(r.numerator) / r.denominator


def _rational(s: Any, r: Fraction) -> Any:
    """Return s^r for a power series s."""
    if r.denominator == 1:
        return s ** int(r) if r >= 0 else 1 / s ** int(-r)
    whole, part = Fraction(r // 1), r % 1
    root = s.sqrt() if part == Fraction(1, 2) else (s.log() * ball(part)).exp()
    return root * _rational(s, whole)


def _power(x: Any, r: Fraction) -> Any:
    """Return x^r for a ball."""
    if r.denominator == 1:
        y = x ** abs(int(r))
        return y if r >= 0 else divide(ONE, y)
    if isinstance(x, arb) and x < 0:
        return NAN
    if x.is_zero():
        return arb(0) if r > 0 else INFINITY  # an object of its own: one object is equal to itself, now and nearby
    y = x.sqrt() if r == Fraction(1, 2) else x.rsqrt() if r == Fraction(-1, 2) else x ** ball(r)
    if y.is_finite() or not x.is_exact():
        return y if y.is_finite() else Undecided(PRECISION)
    return NAN if not isinstance(x, arb) or x.is_nan() else INFINITY if r > 0 else ZERO


def divide(a: Any, b: Any) -> Any:
    """Return a / b; with an exact 0 below, what IEEE makes of +0."""
    if isinstance(b, Germ):
        return a * raised(b, Fraction(-1))
    if isinstance(b, Undecided):
        return b
    if isinstance(a, Undecided):
        return a
    if b.is_zero():
        s = sign(a) if not isinstance(a, acb) else math.nan
        return s if isinstance(s, Undecided) else INFINITY * s if s == s and s else NAN
    if b.contains(0):
        return Undecided(PRECISION)
    return a * (1 / b) if isinstance(a, Germ) else a / b


def _start(s: Any) -> Any:
    """Return a ball, or the first coefficient of a power series."""
    return s if isinstance(s, arb | acb) else s.coeffs()[0]


def _tanh_slope(s: Any) -> Any:
    e = (s * (-2 if _start(s).real >= 0 else 2)).exp()
    return 4 * e / ((1 + e) * (1 + e))


def _logistic_slope(s: Any) -> Any:
    e = (-s if _start(s).real >= 0 else s).exp()
    return e / ((1 + e) * (1 + e))


def _logistic(x: Any) -> Any:
    if x.real >= 0:
        return 1 / (1 + (-x).exp())
    e = x.exp()
    return e / (1 + e)


def _digamma(s: Any) -> Any:
    if isinstance(s, arb | acb):
        return s.digamma()
    with terms(ctx.cap + 1):
        r = type(s)([_start(s), 1]).rgamma()
        return -r.derivative() / r


def _trigamma(s: Any) -> Any:
    if isinstance(s, arb | acb):
        return _polygamma(ONE, s)
    with terms(ctx.cap + 1):
        return _digamma(s).derivative()


def _erf_inv_slope(s: Any) -> Any:
    """Iterate y' = √π/2 exp(y²), which gains a coefficient each time."""
    k, y = arb.pi().sqrt() / 2, _start(s).erfinv()
    if s is not _start(s):
        start, y = y, arb_series([y])
        for _ in range(ctx.cap):
            y = (k * (y * y).exp()).integral() + start
    return k * (y * y).exp()


def _log_gamma(x: Any) -> Any:
    return x.lgamma() if isinstance(x, acb) or x > 0 else -abs(x.rgamma()).log()


def _gamma_density(a: Any, s: Any) -> Any:
    return (s.log() * (a - 1) - s).exp() * a.rgamma()


def _lower_beta(a: Any, b: Any, x: Any) -> Any:
    """Return I_x(a, b), beyond ½ as 1 − I_{1−x}(b, a): flint's own way there fails near integers b."""
    far = x.real > HALF
    return 1 - (1 - x).beta_lower(b, a, regularized=1) if far else x.beta_lower(a, b, regularized=1)


def _beta_density(a: Any, b: Any, s: Any) -> Any:
    return (s.log() * (a - 1) + (1 - s).log() * (b - 1)).exp() * ((a + b).gamma() * a.rgamma() * b.rgamma())


def _gamma_start(a: Any, g: Any) -> Any:
    """Return P(a, g) where g goes to 0: g^a e^−g Σ g^n / Γ(a + n + 1)."""
    power = _exact_power(a, g)
    if isinstance(power, Undecided):
        return power
    rest: Any = Germ({}, ctx.cap * g.lowest)
    for n in reversed(range(ctx.cap)):
        rest = rest * g + (a + (n + 1)).rgamma()
    return power * EXP(-g) * rest


def _beta_start(a: Any, b: Any, g: Any) -> Any:
    """Return I_g(a, b) where g goes to 0 or 1: g^a (1 − g)^b / (a B(a, b)) Σ g^n (a + b)_n / (a + 1)_n at 0."""
    if isinstance(g, Germ) and limit(g) == 1:
        return ONE - _beta_start(b, a, ONE - g)
    power = _exact_power(a, g)
    if isinstance(power, Undecided) or not isinstance(b, arb):
        return power if isinstance(power, Undecided) else Undecided(ESSENTIAL)
    rest: Any = Germ({}, ctx.cap * g.lowest)
    for n in reversed(range(ctx.cap)):
        rest = rest * g * ((a + b + n) / (a + (n + 1))) + ONE
    factor = (a + b).gamma() * (a + 1).rgamma() * b.rgamma()
    return power * EXP(LOG(ONE - g) * b) * rest * factor


def _exact_power(a: Any, g: Any) -> Any:
    """Return g^a for an exact a > 0 where g goes to 0, undecided elsewhere."""
    if not (isinstance(a, arb) and a.is_exact() and a > 0 and isinstance(g, Germ) and limit(g) == 0):
        return Undecided(ESSENTIAL)
    r = a.fmpq()
    return raised(g, Fraction(int(r.numer()), int(r.denom())))


def _polygamma(n: Any, x: Any) -> Any:
    y = acb(x).polygamma(acb(n))
    return y.real if isinstance(x, arb) and isinstance(n, arb) else y


LOG1P = Analytic(
    lambda x: x.log1p(),
    lambda s: 1 / (1 + s),
    (NAN, INFINITY),
    elsewhere=lambda g: LOG(g + ONE),
    poles=-INFINITY,
)
LOG = Analytic(lambda x: x.log(), lambda s: 1 / s, (NAN, INFINITY), elsewhere=logarithm, poles=-INFINITY)
EXP = Analytic(lambda x: x.exp(), lambda s: s.exp(), (ZERO, INFINITY), elsewhere=exponential)
BESSEL_I = [Analytic(lambda x, n=n: x.bessel_i(n)) for n in (0, 1)]


def _sqrt(x: Any) -> Any:
    return raised(x, Fraction(1, 2))


def absolute(x: Any) -> Any:
    """Return |x|."""
    if is_complex(x):
        re, im = real(x), imaginary(x)
        return _sqrt(re * re + im * im)
    s = sign(x)
    return s if isinstance(s, Undecided) else -x if s < 0 else x


def is_complex(x: Any) -> bool:
    """Return True for a ball in ℂ, or a germ with such coefficients."""
    return isinstance(x, acb) or (isinstance(x, Germ) and any(isinstance(c, acb) for c in x.terms.values()))


def real(x: Any) -> Any:
    """Return the real part."""
    return x.map(lambda c: c.real) if isinstance(x, Germ) else x if isinstance(x, Undecided) else x.real


def imaginary(x: Any) -> Any:
    """Return the imaginary part."""
    return x.map(lambda c: c.imag) if isinstance(x, Germ) else x if isinstance(x, Undecided) else x.imag


def _atan_far(g: Any) -> Any:
    end = limit(g)
    if isinstance(end, Undecided):
        return end
    half = arb.pi() / 2
    return (half if end > 0 else -half) - ANALYTIC["atan"](raised(g, Fraction(-1)))


def angle(y: Any, x: Any) -> Any:
    """Return atan2(y, x)."""
    sy, sx = sign(y), sign(x)
    for s in (sy, sx):
        if isinstance(s, Undecided):
            return s
    if sy != sy or sx != sx:
        return NAN
    if not isinstance(x, Germ) and not isinstance(y, Germ):
        return arb.atan2(y, x)
    half = arb.pi() / 2
    upper = 1 if sy >= 0 else -1
    if sx == 0:
        return half * sy
    near = compare_size(y, x)
    if isinstance(near, Undecided):
        return near
    if near <= 0:
        return ANALYTIC["atan"](divide(y, x)) + (arb.pi() * upper if sx < 0 else ZERO)
    return half * upper - ANALYTIC["atan"](divide(x, y))


def compare_size(y: Any, x: Any) -> Any:
    """Return the sign of |y| − |x|, 0 where balls do not tell and either quotient will do."""
    s = sign(absolute(y) - absolute(x))
    return s if not isinstance(s, Undecided) or s.why == ORDER else 0


ANALYTIC: dict[str, Analytic] = {
    "exp": EXP,
    "log": LOG,
    "log1p": LOG1P,
    "expm1": Analytic(lambda x: x.expm1(), lambda s: s.exp(), (MINUS, INFINITY), elsewhere=lambda g: EXP(g) - ONE),
    "sin": Analytic(lambda x: x.sin(), lambda s: s.cos()),
    "cos": Analytic(lambda x: x.cos(), lambda s: -s.sin()),
    "tan": Analytic(lambda x: x.tan(), lambda s: 1 + s.tan() * s.tan()),
    "asin": Analytic(
        lambda x: x.asin(), lambda s: (1 - s * s).rsqrt(), elsewhere=lambda g: angle(g, _sqrt((ONE - g) * (ONE + g)))
    ),
    "acos": Analytic(
        lambda x: x.acos(), lambda s: -(1 - s * s).rsqrt(), elsewhere=lambda g: angle(_sqrt((ONE - g) * (ONE + g)), g)
    ),
    "atan": Analytic(lambda x: x.atan(), lambda s: 1 / (1 + s * s), elsewhere=_atan_far),
    "sinh": Analytic(lambda x: x.sinh(), lambda s: (s.exp() + (-s).exp()) / 2, (-INFINITY, INFINITY)),
    "cosh": Analytic(lambda x: x.cosh(), lambda s: (s.exp() - (-s).exp()) / 2, (INFINITY, INFINITY)),
    "tanh": Analytic(lambda x: x.tanh(), _tanh_slope, (MINUS, ONE)),
    "asinh": Analytic(lambda x: x.asinh(), lambda s: (1 + s * s).rsqrt(), (-INFINITY, INFINITY)),
    "acosh": Analytic(
        lambda x: x.acosh(),
        lambda s: (s - 1).rsqrt() * (s + 1).rsqrt(),
        (NAN, INFINITY),
        elsewhere=lambda g: LOG(g + _sqrt((g - ONE) * (g + ONE))),
    ),
    "atanh": Analytic(
        lambda x: x.atanh(),
        lambda s: 1 / (1 - s * s),
        elsewhere=lambda g: (LOG(g + ONE) - LOG(ONE - g)) * HALF,
    ),
    "logistic": Analytic(_logistic, _logistic_slope, (ZERO, ONE)),
    "erf": Analytic(lambda x: x.erf(), lambda s: (-s * s).exp() * (2 / arb.pi().sqrt()), (MINUS, ONE)),
    "erfc": Analytic(lambda x: x.erfc(), lambda s: (-s * s).exp() * (-2 / arb.pi().sqrt()), (2 * ONE, ZERO)),
    "erf_inv": Analytic(lambda x: NAN if abs(x) == 1 else x.erfinv(), _erf_inv_slope),
    "lgamma": Analytic(_log_gamma, _digamma, (INFINITY, INFINITY), poles=INFINITY),
    "digamma": Analytic(lambda x: x.digamma(), _trigamma, (NAN, INFINITY)),
    "polygamma": Analytic(_polygamma),
    "zeta": Analytic(lambda s, a: s.zeta(a), edges=((1,), (0,))),
    "igamma": Analytic(
        lambda a, x: x.gamma_lower(a, regularized=1),
        _gamma_density,
        (NAN, ONE),
        edges=((0,), (0,)),
        elsewhere=_gamma_start,
    ),
    "igammac": Analytic(
        lambda a, x: x.gamma_upper(a, regularized=1),
        lambda a, s: -_gamma_density(a, s),
        (NAN, ZERO),
        edges=((0,), (0,)),
        elsewhere=lambda a, g: ONE - _gamma_start(a, g),
    ),
    "igamma_grad_a": Analytic(lambda a, x: ANALYTIC["igamma"].taylor(0, 2, a, x)[1], edges=((0,), (0,))),
    "regularized_incomplete_beta": Analytic(
        _lower_beta, _beta_density, edges=((0,), (0,), (0, 1)), elsewhere=_beta_start
    ),
}
