"""The derivative along one entry: one-sided slopes read off germs, and the verdict on them."""

import dataclasses
import enum
import functools
from fractions import Fraction
from typing import Any

import numpy as np
from flint import arb

from refgrad.verify.exact.accuracy import largest, narrow
from refgrad.verify.exact.scalars.germ import PRECISION, ZERO, Exponent, Germ, Undecided, limit, slope


class EntryVerdict(enum.Enum):
    """A function's behaviour along one entry of its arguments.

    Attributes:
      SMOOTH: the slopes from both sides agree.
      KINK: they differ.
      JUMP: the function is not continuous.
      END: the function is defined on one side alone.
      NOT_FINITE: the slope is infinite.
      UNDECIDED: exact arithmetic found no answer within its limits.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad.verify import exact
      >>> (entry,) = exact(jnp.abs, jnp.array(0.0)).entries()
      >>> entry.verdict.name
      'KINK'
    """

    SMOOTH = "smooth"
    KINK = "kink"
    JUMP = "jump"
    END = "end of the domain"
    NOT_FINITE = "truth is not finite"
    UNDECIDED = "not decided"


@dataclasses.dataclass(frozen=True)
class Entry:
    """The derivative along one entry: the slopes from below and from above, None for a side without one.

    Attributes:
      leaf: the number of the argument's leaf.
      index: the index of the entry.
      verdict: the function's behaviour there.
      below: the slope from below.
      above: the slope from above.
      why: the reason of a verdict that needs one.
      imaginary: True along the imaginary part of a complex entry.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad.verify import exact
      >>> (entry,) = exact(jnp.abs, jnp.array(0.0)).entries()
      >>> str(entry)
      'kink: slopes -1 and 1'
    """

    leaf: int
    index: tuple[int, ...]
    verdict: EntryVerdict
    below: arb | None = None
    above: arb | None = None
    why: str = ""
    imaginary: bool = False

    def __str__(self) -> str:
        sides = [f"{float(x.mid()):.6g}" for x in (self.below, self.above) if x is not None]
        text = {
            EntryVerdict.SMOOTH: f": slope {sides[-1]}" if sides else "",
            EntryVerdict.KINK: f": slopes {' and '.join(sides)}",
            EntryVerdict.END: f": slope {' and '.join(sides)} from inside",
        }.get(self.verdict, f": {self.why}" if self.why else "")
        return f"{self.verdict.value}{text}"


NOT_FINITE, JUMP, OUTSIDE = "not finite", "the limit is not the value", "outside the domain"
BREAK = "the derivative jumps"
SEVERITY = {"": 0, OUTSIDE: 2, JUMP: 3, NOT_FINITE: 4}  # what balls or series do not decide: 1


# the exponent of a second direction: a denominator that no power of ε in a program has
SECOND = 1 + Fraction(48, 97)


def one_sided(value: Any, germ: Any, bits: int, k: int = 1) -> Any:
    """Return the k-th derivative of an output along a direction, given its value, or what stands in its way."""
    obstacle = obstacle_to(value, germ, bits)
    found = obstacle or slope(germ, k)
    return found.why if isinstance(found, Undecided) else found


def obstacle_to(value: Any, germ: Any, bits: int) -> str:
    """Return what keeps a germ from having derivatives at a value; empty where nothing does."""
    if isinstance(value, Undecided):
        return value.why
    if not value.is_finite():
        return NOT_FINITE
    end = limit(germ)
    if isinstance(end, Undecided):
        return end.why
    if isinstance(end, arb) and end.is_nan():
        return OUTSIDE
    gap = end - value
    if not end.is_finite() or not gap.contains(0):
        return JUMP
    if not narrow(gap, max(largest(np.array([value], object)), 2.0**-bits), bits // 2):
        return PRECISION
    return ""


def _along_second(germ: Any) -> Any:
    """Return the derivative along the direction at ε^SECOND, next to the point: a germ in ε along the first."""
    if not isinstance(germ, Germ):
        return ZERO
    terms = {(k[0] - SECOND, k[1]): c for k, c in germ.terms.items()}
    linear = {(_whole(q), p): c for (q, p), c in terms.items() if Fraction(q).denominator % SECOND.denominator}
    return Germ.of(linear, germ.order - SECOND)


def _whole(q: Exponent) -> Exponent:
    return int(q) if q == int(q) else q


def bend(right: Any, left: Any, at: tuple[Any, Any]) -> Any:
    """Return the slope of a derivative along a first direction, or the obstacle to it.

    It is given by the germs along its direction and along the opposite one, and by its values `at` the point along
    both. A kink that is the same there and next to it does not matter.
    """
    for x in (right, left):
        if isinstance(x, str):
            return x
    right, left = (_along_second(x) + -start for x, start in zip((right, left), at, strict=True))
    found = [limit(right), limit(left), slope(right), slope(left)]
    if lost := next((x for x in found if isinstance(x, Undecided)), None):
        return lost.why
    end, back, bent, bent_back = found
    if not all(x.is_finite() and x.contains(0) for x in (end, back)):
        return BREAK
    if bent.is_finite():
        return bent if (bent + bent_back).contains(0) else BREAK
    return bent if bent == -bent_back else BREAK


def judge(leaf: int, index: tuple[int, ...], below: Any, above: Any, imaginary: bool) -> Entry:
    """Return the verdict on an entry, given the slope of each side as it goes away, or what stands in its way."""
    entry = functools.partial(Entry, leaf, index, imaginary=imaginary)
    words = [s for s in (below, above) if isinstance(s, str)]
    for word, verdict in ((NOT_FINITE, EntryVerdict.NOT_FINITE), (JUMP, EntryVerdict.JUMP), (BREAK, EntryVerdict.JUMP)):
        if word in words:
            return entry(verdict, why=word)
    rest = [w for w in words if w != OUTSIDE]
    if rest:
        return entry(EntryVerdict.UNDECIDED, why=rest[0])
    left, right = (None if isinstance(s, str) else s for s in (below, above))
    left = None if left is None else -left
    if left is None and right is None:
        return entry(EntryVerdict.NOT_FINITE, why="outside the domain on both sides")
    if left is None or right is None:
        return entry(EntryVerdict.END, left, right)
    if left.is_nan() or right.is_nan() or (not left.is_finite() and left == right):
        return entry(EntryVerdict.NOT_FINITE, left, right, why="an infinite slope")
    if not left.is_finite() or not right.is_finite() or not (left - right).contains(0):
        return entry(EntryVerdict.KINK, left, right)
    return entry(EntryVerdict.SMOOTH, left, right)
