"""Constants that were folded before the program was made: which product of others each one is, up to its rounding.

`2 * A * C` in Python is one rounded literal in a rule, where the forward multiplies by A and by C. A constant counts as
a closed form, or as a multiple of another constant of the program, where it is one up to four roundings of its dtype:
a small rational times powers of √2, √π and log 2, and of one other constant c, 1 − c or 1 + c.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Mapping
from fractions import Fraction

from flint import arb, fmpq

from refgrad.verify.prove.evaluate import _log, _root, sqrt_pi
from refgrad.verify.prove.symbol import ConcolicRun, Symbol

ROUNDINGS = 2.0  # in units of eps: four roundings of half a unit
SMALL = 64  # largest numerator and denominator of a factor
PLAIN = 20  # bits of a constant that is left as it is
MOST = 64  # constants, beyond which none is identified


@dataclasses.dataclass(frozen=True)
class ClosedForm:
    """A constant as r · √2^a · √π^b · (log 2)^c · (d + s·base)^e."""

    value: float
    factor: Fraction
    sqrt_2: int = 0
    sqrt_pi: int = 0
    log_2: int = 0
    base: float | None = None
    affine: tuple[int, int] = (0, 1)
    exponent: int = 0

    def __str__(self) -> str:
        parts = [
            f"{name}" if n == 1 else f"{name}^{n}"
            for name, n in (("√2", self.sqrt_2), ("√π", self.sqrt_pi), ("log 2", self.log_2))
            if n
        ]
        if self.base is not None:
            inner = {(0, 1): f"{self.base!r}", (1, -1): f"(1 − {self.base!r})", (1, 1): f"(1 + {self.base!r})"}
            parts.append(inner[self.affine] + (f"^{self.exponent}" if self.exponent != 1 else ""))
        if self.factor != 1 or not parts:
            parts.insert(0, str(self.factor))
        return f"{self.value!r} = {'·'.join(parts)}"

    def complexity(self) -> int:
        """Return the size of the numbers in it."""
        odd = self.factor.numerator * self.factor.denominator
        odd //= odd & -odd
        forms = abs(self.sqrt_2) + abs(self.sqrt_pi) + abs(self.log_2)
        return abs(odd) + forms + abs(self.exponent) + 8 * self.affine[0]

    def __call__(self, run: ConcolicRun) -> Symbol:
        """Return the exact constant."""
        out = run.constant(fmpq(self.factor.numerator, self.factor.denominator))
        if self.sqrt_2:
            out = out * _root(run.constant(2), 2) ** self.sqrt_2
        if self.sqrt_pi:
            out = out * sqrt_pi(run) ** self.sqrt_pi
        if self.log_2:
            out = out * _log(run.constant(2)) ** self.log_2
        if self.base is not None:
            plus, times = self.affine
            out = out * (run.constant(plus) + run.constant(arb(self.base).fmpq()) * times) ** self.exponent
        return out


def identities(constants: Mapping[float, float]) -> dict[float, ClosedForm]:
    """Return what constants are closed forms or multiples of others; those met first are the bases.

    `constants` maps each to the unit roundoff of its dtype.
    """
    found: dict[float, ClosedForm] = {}
    bases: list[float] = []
    odd = {v: eps for v, eps in constants.items() if not is_plain(v)}
    if len(odd) > MOST:
        return {}
    for value, eps in odd.items():
        identity = min(_candidates(value, eps, bases), key=ClosedForm.complexity, default=None)
        if identity is None:
            bases.append(value)
        else:
            found[value] = identity
    return found


def is_plain(value: float) -> bool:
    """Return True for a number of few bits."""
    mantissa = abs(Fraction(value).numerator)
    return not mantissa or (mantissa // (mantissa & -mantissa)).bit_length() <= PLAIN


def _candidates(value: float, eps: float, bases: Iterable[float]) -> Iterable[ClosedForm]:
    for a, b, c in _FORMS:
        if (factor := _small(value / _form(a, b, c), eps)) is not None:
            yield ClosedForm(value, factor, a, b, c)
    for base, affine, exponent in itertools.product(bases, ((0, 1), (1, -1), (1, 1)), (1, -1, 2, -2)):
        inner = (affine[0] + affine[1] * base) ** exponent if affine[0] + affine[1] * base else 0.0
        if not inner or math.isinf(inner):
            continue
        for a, b, c in _FORMS:
            if (factor := _small(value / (inner * _form(a, b, c)), eps)) is not None:
                yield ClosedForm(value, factor, a, b, c, base, affine, exponent)


_FORMS = sorted(itertools.product((0, 1), (0, 1, -1, 2, -2), (0, 1, -1)), key=lambda f: sum(map(abs, f)))


@functools.cache
def _form(a: int, b: int, c: int) -> float:
    return math.sqrt(2) ** a * math.sqrt(math.pi) ** b * math.log(2) ** c


def _small(ratio: float, eps: float) -> Fraction | None:
    """Return a rational of small numerator and denominator, powers of two apart, that is a number up to rounding."""
    if not ratio or not math.isfinite(ratio):
        return None
    scaled, shift = math.frexp(ratio)
    near = Fraction(scaled).limit_denominator(SMALL)
    if not near or near.numerator > SMALL or abs(float(near) / scaled - 1) > (ROUNDINGS + 2) * eps:
        return None
    return near * Fraction(2) ** shift
