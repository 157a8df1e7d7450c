"""The functions of scalars that primitives stand for, by name, on balls and germs alike."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from typing import Any

from flint import acb, arb

from refgrad.verify.exact.scalars import elementary as fn
from refgrad.verify.exact.scalars.arithmetic import ADD, DIV, MUL, NEG, SQUARE, SUB, Linear, power_of
from refgrad.verify.exact.scalars.decisions import (
    Decision,
    by_sign,
    conjunction,
    equal,
    finite,
    larger,
    negated,
    smaller,
)
from refgrad.verify.exact.scalars.functions import Function
from refgrad.verify.exact.scalars.germ import (
    CORNER,
    HALF,
    NAN,
    ONE,
    PRECISION,
    ZERO,
    Germ,
    Undecided,
    limit,
    same,
    sign,
)
from refgrad.verify.exact.scalars.special_functions import ANALYTIC, BESSEL_I


def _sign(x: Any) -> Any:
    s = sign(x)
    return s if isinstance(s, Undecided) else arb(s)


def _floor(x: Any) -> Any:
    """Return the largest integer that is not above a real scalar."""
    start = limit(x)
    if not start.is_finite():
        return start
    n = start.floor().unique_fmpz()
    if n is None:
        return Undecided(PRECISION)
    if start.is_exact() and start == n:
        s = sign(x - start)
        return s if isinstance(s, Undecided) else arb(n) if s >= 0 else arb(n - 1)
    return arb(n)


def truncate(x: Any) -> Any:
    """Return a real scalar rounded towards zero."""
    s = sign(x)
    return s if isinstance(s, Undecided) else NAN if s != s else _floor(x) if s >= 0 else -_floor(-x)


def _remainder(a: Any, b: Any) -> Any:
    return a - b * truncate(fn.divide(a, b))


def round_away(x: Any) -> Any:
    """Return the nearest integer, halves away from 0."""
    s = sign(x)
    return s if isinstance(s, Undecided) else NAN if s != s else _floor(x + HALF) if s >= 0 else -_floor(HALF - x)


def round_even(x: Any) -> Any:
    """Return the nearest integer, halves to the even one."""
    n = _floor(x + HALF)
    half = same(n - x, HALF)
    if any(isinstance(y, Undecided) for y in (n, half)):
        return n if isinstance(n, Undecided) else half
    return n - 1 if half and n.is_finite() and not (n / 2).is_integer() else n


def _power(x: Any, y: Any) -> Any:
    """Return x^y: by the exponent where that is an exact ball, else exp(y log x)."""
    if isinstance(y, Undecided) or isinstance(x, Undecided):
        return y if isinstance(y, Undecided) else x
    if isinstance(y, arb) and y.is_exact() and y.is_finite():
        r = y.fmpq()
        return fn.raised(x, Fraction(int(r.numer()), int(r.denom())))
    if isinstance(x, arb | acb) and x.is_zero():
        s = sign(y)
        return s if isinstance(s, Undecided) else ZERO if s > 0 else arb("inf") if s < 0 else NAN
    return fn.EXP(y * fn.LOG(x))


def _cbrt(x: Any) -> Any:
    s = sign(x)
    if isinstance(s, Undecided):
        return s
    return fn.raised(x, Fraction(1, 3)) if s >= 0 else -fn.raised(-x, Fraction(1, 3)) if s < 0 else NAN


def _bessel(n: int, x: Any) -> Any:
    return fn.EXP(-fn.absolute(x)) * BESSEL_I[n](x)


def _complex(a: Any, b: Any) -> Any:
    return a * acb(1) + b * acb(0, 1)


class RealPart(Linear):
    """A linear function from ℂ or to it: of real operands the real part of a cotangent returns."""

    pull = Function.pull


class Modulus(Function):
    """|x|, whose cotangent is ct · conj(x)/|x|."""

    def tangent(self, apply: Callable, tangents: Sequence[Any], y: Any, *xs: Any) -> Any:
        """Return Re(conj(x) ẋ)/|x|, of real operands ±ẋ."""
        if acb not in map(type, xs[0].data.ravel()):
            return super().tangent(apply, tangents, y, *xs)
        return apply(SCALARS["real"], apply(SCALARS["conj"], xs[0]) * tangents[0]) / y

    def pull_one(self, i: int, ct: Any, y: Any, *xs: Any) -> Any:
        """Return the cotangent of x."""
        return Undecided(CORNER) if y.contains(0) else ct * _conjugate(xs[i]) / y


def _conjugate(x: Any) -> Any:
    if isinstance(x, Germ):
        return x.map(lambda c: c.conjugate() if isinstance(c, acb) else c)
    return x.conjugate() if isinstance(x, acb) else x


def scaled(f: Function, factor: Callable[[], Any], inside: bool) -> Function:
    """The function f(k·x), or k·f(x), of a constant k at the precision in force."""
    if inside:
        return Function(lambda x: f(x * factor()))
    return Function(lambda x: f(x) * factor())


SCALARS: dict[str, Function] = {
    **ANALYTIC,
    "add": ADD,
    "sub": SUB,
    "mul": MUL,
    "div": DIV,
    "neg": NEG,
    "square": SQUARE,
    "one_minus_square": Function(lambda x: (ONE - x) * (x + ONE)),
    "real": RealPart(fn.real, lambda ct, *_: ct * acb(1)),
    "imag": RealPart(fn.imaginary, lambda ct, *_: ct * acb(0, -1)),
    "conj": RealPart(_conjugate, lambda ct, *_: _conjugate(ct)),
    "complex": RealPart(_complex, lambda ct, *_: ct, lambda ct, *_: ct * acb(0, 1)),
    "abs": Modulus(fn.absolute),
    "sqrt": power_of(Fraction(1, 2)),
    "rsqrt": power_of(Fraction(-1, 2)),
    "exp2": scaled(fn.EXP, arb.const_log2, inside=True),
    "log2": scaled(fn.LOG, lambda: 1 / arb.const_log2(), inside=False),
    "pow": Function(_power),
    "cbrt": Function(_cbrt),
    "atan2": Function(fn.angle),
    "bessel_i0e": Function(partial(_bessel, 0)),
    "bessel_i1e": Function(partial(_bessel, 1)),
    "sign": Function(_sign),
    "floor": Function(_floor),
    "ceil": Function(lambda x: -_floor(-x)),
    "rem": Function(_remainder),
    "max": Function(larger),
    "min": Function(smaller),
    "clamp": Function(lambda low, x, high: smaller(larger(x, low), high)),
    "eq": Decision(equal),
    "ne": Decision(lambda a, b: negated(equal(a, b))),
    "lt": by_sign(lambda s: s < 0),
    "le": by_sign(lambda s: s <= 0),
    "gt": by_sign(lambda s: s > 0),
    "ge": by_sign(lambda s: s >= 0),
    "is_finite": Decision(finite),
    "not": Decision(negated),
    "and": Decision(conjunction),
    "or": Decision(lambda a, b: negated(conjunction(negated(a), negated(b)))),
    "xor": Decision(lambda a, b: next((x for x in (a, b) if isinstance(x, Undecided)), a is not b)),
}


TO_COMPLEX = RealPart(lambda x: x * acb(1), lambda ct, *_: ct)
