"""A backward rule is linear in its cotangent, and gives the same bits each time it is asked.

No program is compiled for these: the rule that `accuracy` compiled is called with other cotangents.
"""

from collections.abc import Iterator

import numpy as np

from refgrad.verify.case import Case
from refgrad.verify.numbers import compared, difference, to_wide
from refgrad.verify.oracle import Leaves
from refgrad.verify.report import FAIL, OK, Row


def linearity(case: Case) -> Iterator[Row]:
    """The zero cotangent gives zero, twice a cotangent twice the gradient, a sum of cotangents the sum."""
    one, other = case.cotangent(0), case.cotangent(1)
    first, second = _pull(case, one), _pull(case, other)
    nothing = _pull(case, [np.zeros_like(c) for c in one])
    double = _pull(case, [2 * np.asarray(c) for c in one])
    both = _pull(case, [np.asarray(a) + np.asarray(b) for a, b in zip(one, other, strict=True)])
    for i, name in enumerate(case.subject.arguments):
        singular = ~np.isfinite(first[i])  # 0 times an infinite slope is NaN, in any rule
        with np.errstate(invalid="ignore"):
            total = first[i] + second[i]
        scale = max(case.scale(i, g, case.diff[i].dtype) for g in (first[i], second[i]))  # a sum may cancel
        tests = {
            "zero in, zero out": (nothing[i], np.zeros_like(first[i]), singular),
            "twice in, twice out": (double[i], 2 * first[i], _lost(double[i], first[i])),
            "sum in, sum out": (both[i], total, _lost(both[i], total)),
        }
        found = {k: compared(g, e, case.spread[i], scale, skip) for k, (g, e, skip) in tests.items()}
        broken = [label for label, (worst, allowed) in found.items() if not worst.error <= allowed]
        worst, allowed = max(found.values(), key=lambda pair: pair[0].error / (pair[1] or 1.0))
        note = f"not linear in the cotangent: not {', not '.join(broken)}" if broken else ""
        yield Row("linearity", name, FAIL if broken else OK, **worst.cells(), allowed=allowed, note=note)


def repeat(case: Case) -> Iterator[Row]:
    """The same call twice, bit for bit."""
    ct = case.cotangent(0)
    once, again = _pull(case, ct), _pull(case, ct)
    for name, a, b in zip(case.subject.arguments, once, again, strict=True):
        same = np.array_equal(a, b, equal_nan=True)
        found = difference(b, a)
        note = "" if same else "two identical calls give different bits"
        yield Row("repeat", name, OK if same else FAIL, **found.cells(), allowed=0.0, note=note)


def _pull(case: Case, cts: list) -> Leaves:
    return [to_wide(g) for g in case.rule(case.diff, case.rest, cts)[1]]


def _lost(got: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """True where a number overflows: that is no finding."""
    return ~np.isfinite(got) | ~np.isfinite(expected)
