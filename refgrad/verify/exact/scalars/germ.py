"""Germs: series c₀ε^q₀ + c₁ε^q₁ + … + o(ε^t) in ε → 0+, with rational exponents, powers of L = log 1/ε and balls.

A scalar here is a ball (`flint.arb`, complex `flint.acb`; ±∞ and NaN among them), a `Germ` where it moves with ε, or
`Undecided` where balls of this precision or series of this order do not determine it. `flint.ctx.prec` is the
precision in bits, `flint.ctx.cap` the order: how far beyond its leading exponent a series goes.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from flint import acb, acb_poly, arb, arb_poly, ctx

Exponent = int | Fraction
Key = tuple[Exponent, Exponent]  # (q, −p) of ε^q L^p: the smaller key is the larger term
CONSTANT: Key = (0, 0)
LINEAR: Key = (1, 0)
EXACT = math.inf  # the order of a germ without remainder
FEW = 64  # products of terms that are not worth a polynomial
FLAT = 10**9  # the order of what is smaller than every power of ε, as exp(−1/ε)

ABSENT = arb(0)  # this very object as a cotangent: nothing flows here, whatever the slope
ZERO, ONE, NAN, INFINITY = arb(0), arb(1), arb("nan"), arb("inf")
HALF, MINUS = arb(0.5), arb(-1)
PRECISION = "the balls are too wide"
ORDER = "the leading terms cancel"
ESSENTIAL = "a singularity that is not a power or a logarithm"
TIE = "a tie"
CORNER = "a tie, with finite slopes on both sides"


class Undecided:
    """A scalar that is not determined, and why; it absorbs every other operand."""

    __slots__ = ("why",)

    def __init__(self, why: str) -> None:
        self.why = why

    def _absorb(self, *_: Any) -> "Undecided":
        return self

    def is_finite(self) -> bool:
        """Return False: nothing is certain."""
        return False

    is_zero = is_nan = is_finite
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __neg__ = _absorb

    def __repr__(self) -> str:
        return f"undecided: {self.why}"


class Germ:
    """The terms of a series by their keys, and its order t: everything below ε^t is there."""

    __slots__ = ("order", "terms")

    def __init__(self, terms: dict[Key, Any], order: Any = EXACT) -> None:
        self.terms, self.order = terms, order

    @staticmethod
    def of(terms: dict[Key, Any], order: Any = EXACT) -> Any:
        """Return the scalar with these terms, a ball where none of them moves, cut at the order in force."""
        terms = {k: c for k, c in terms.items() if k[0] < order and not c.is_zero()}
        if terms:
            cut = min(k[0] for k in terms) + ctx.cap
            if order > cut and (order < EXACT or any(k[0] >= cut for k in terms)):
                terms, order = {k: c for k, c in terms.items() if k[0] < cut}, cut
        if order == EXACT and all(k == CONSTANT for k in terms):
            return terms.get(CONSTANT, ZERO)
        return Germ(terms, order)

    @property
    def lowest(self) -> Any:
        """The exponent of the largest term, or the order if all terms are 0."""
        return min((k[0] for k in self.terms), default=self.order)

    def leading(self) -> "tuple[Key, Any] | Undecided":
        """Return the largest term, if it is certain that its coefficient is not 0."""
        if not self.terms:
            return Undecided(ORDER)
        key = min(self.terms)
        return Undecided(PRECISION) if self.terms[key].contains(0) else (key, self.terms[key])

    def is_finite(self) -> bool:
        """Return True: a germ moves, and is not an infinity or NaN."""
        return True

    def is_zero(self) -> bool:
        """Return False: what is exactly 0 is a ball."""
        return False

    is_nan = is_zero

    def map(self, f: Callable[[Any], Any]) -> Any:
        """Return the series with a linear function of each coefficient in its place."""
        return Germ.of({k: f(c) for k, c in self.terms.items()}, self.order)

    def shift(self, q: Exponent) -> Any:
        """Return ε^q times the series."""
        return Germ.of({(k[0] + q, k[1]): c for k, c in self.terms.items()}, self.order + q)

    def __add__(self, other: Any) -> Any:
        if isinstance(other, Undecided):
            return other
        if not isinstance(other, Germ):
            if not other.is_finite():
                return other
            other = Germ({CONSTANT: other})
        terms = dict(self.terms)
        for k, c in other.terms.items():
            terms[k] = terms[k] + c if k in terms else c
        return Germ.of(terms, min(self.order, other.order))

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, Undecided):
            return other
        if not isinstance(other, Germ):
            if not other.is_finite():
                s = sign(self)
                return s if isinstance(s, Undecided) else other * s
            return ZERO if other.is_zero() else self.map(lambda c: c * other)
        order = min(self.order + other.lowest, other.order + self.lowest)
        if len(self.terms) * len(other.terms) > FEW and (a := self._dense()) and (b := other._dense()):
            polynomial = arb_poly if all(isinstance(c, arb) for c in (*a, *b)) else acb_poly
            low = self.lowest + other.lowest
            product = (polynomial(a) * polynomial(b)).coeffs()
            return Germ.of({(low + k, 0): c for k, c in enumerate(product)}, order)
        terms: dict[Key, Any] = {}
        for (q, m), c in self.terms.items():
            for (r, n), d in other.terms.items():
                key = (q + r, m + n)
                terms[key] = terms[key] + c * d if key in terms else c * d
        return Germ.of(terms, order)

    def _dense(self) -> list[Any]:
        """Return the coefficients of a series in consecutive powers, from the lowest; nothing of any other."""
        low = self.lowest
        found = [self.terms.get((low + k, 0)) for k in range(len(self.terms))]
        return [] if None in found else found

    def __neg__(self) -> Any:
        return Germ({k: -c for k, c in self.terms.items()}, self.order)

    def __sub__(self, other: Any) -> Any:
        return self + -other

    def __rsub__(self, other: Any) -> Any:
        return -self + other

    __radd__ = __add__
    __rmul__ = __mul__

    def __repr__(self) -> str:
        terms = (f"{c}·ε^{q}" + (f"·L^{-m}" if m else "") for (q, m), c in sorted(self.terms.items()))
        return " + ".join([*terms, *([] if self.order == EXACT else [f"o(ε^{self.order})"])])


def variable(x: Any, slope: Any = ONE) -> Any:
    """Return x + slope·ε."""
    return Germ.of({CONSTANT: x, LINEAR: slope}) if x.is_finite() else x


def limit(x: Any) -> Any:
    """Return the limit of a scalar: ±∞ where it diverges."""
    if not isinstance(x, Germ):
        return x
    if x.order <= 0:
        return Undecided(ORDER)
    if any(k < CONSTANT for k in x.terms):
        lead = x.leading()
        return lead if isinstance(lead, Undecided) else _signed_infinity(lead[1])
    return x.terms.get(CONSTANT, ZERO)


def slope(x: Any, k: int = 1) -> Any:
    """Return the k-th derivative in ε at 0+ of a scalar that converges: ±∞ where terms below ε^k remain."""
    if not isinstance(x, Germ):
        return ZERO if isinstance(x, arb | acb) else x
    low = {key: c for key, c in x.terms.items() if key < (k, 0) and (key[1] or key[0] not in range(k))}
    if low:
        lead = Germ(low).leading()
        return lead if isinstance(lead, Undecided) else _signed_infinity(lead[1])
    return x.terms.get((k, 0), ZERO) * math.factorial(k) if x.order > k else Undecided(ORDER)


def _signed_infinity(c: Any) -> Any:
    return (INFINITY if c > 0 else -INFINITY) if isinstance(c, arb) else NAN


def sign(x: Any) -> Any:
    """Return −1, 0 or 1 as a real scalar is below, exactly at or above 0 for small ε > 0; NaN for NaN."""
    if isinstance(x, Germ):
        lead = x.leading()
        return lead if isinstance(lead, Undecided) else sign(lead[1])
    if isinstance(x, Undecided):
        return x
    if x > 0:
        return 1
    if x < 0:
        return -1
    if x.is_zero():
        return 0
    return math.nan if x.is_nan() else Undecided(PRECISION)


def compare(a: Any, b: Any) -> Any:
    """Return the sign of a − b; one object is equal to itself, and so are equal infinities."""
    if a is b or (isinstance(a, arb) and isinstance(b, arb) and a == b):
        return math.nan if isinstance(a, arb) and a.is_nan() else a if isinstance(a, Undecided) else 0
    return sign(a - b)


def same(a: Any, b: Any) -> Any:
    """Return True where two real or complex scalars are equal for all small ε, False where they are not."""
    gap = a - b if a is not b else ZERO
    if isinstance(gap, Germ):
        lead = gap.leading()
        return lead if isinstance(lead, Undecided) else False
    if isinstance(gap, Undecided | arb):
        order = compare(a, b) if isinstance(gap, arb) else gap
        return order if isinstance(order, Undecided) else order == 0
    return True if gap.is_zero() else Undecided(PRECISION) if gap.contains(0) else False
