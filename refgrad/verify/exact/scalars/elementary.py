"""Elementary functions of scalars, where they are not analytic too: powers, quotients, logarithms, angles, parts."""

import math
from fractions import Fraction
from typing import Any

from flint import acb, arb

from refgrad.verify.exact.scalars.analytic import Analytic
from refgrad.verify.exact.scalars.germ import (
    CONSTANT,
    ESSENTIAL,
    EXACT,
    FLAT,
    INFINITY,
    NAN,
    ONE,
    ORDER,
    PRECISION,
    ZERO,
    Germ,
    Undecided,
    limit,
    sign,
)


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


LOG1P = Analytic(
    lambda x: x.log1p(),
    lambda s: 1 / (1 + s),
    (NAN, INFINITY),
    elsewhere=lambda g: LOG(g + ONE),
    poles=-INFINITY,
)
LOG = Analytic(lambda x: x.log(), lambda s: 1 / s, (NAN, INFINITY), elsewhere=logarithm, poles=-INFINITY)
EXP = Analytic(lambda x: x.exp(), lambda s: s.exp(), (ZERO, INFINITY), elsewhere=exponential)


def sqrt(x: Any) -> Any:
    """Return √x."""
    return raised(x, Fraction(1, 2))


def absolute(x: Any) -> Any:
    """Return |x|."""
    if is_complex(x):
        re, im = real(x), imaginary(x)
        return sqrt(re * re + im * im)
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
    return (half if end > 0 else -half) - ATAN(raised(g, Fraction(-1)))


ATAN = Analytic(lambda x: x.atan(), lambda s: 1 / (1 + s * s), elsewhere=_atan_far)


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
        return ATAN(divide(y, x)) + (arb.pi() * upper if sx < 0 else ZERO)
    return half * upper - ATAN(divide(x, y))


def compare_size(y: Any, x: Any) -> Any:
    """Return the sign of |y| − |x|, 0 where balls do not tell and either quotient will do."""
    s = sign(absolute(y) - absolute(x))
    return s if not isinstance(s, Undecided) or s.why == ORDER else 0
