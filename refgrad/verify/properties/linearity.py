"""A backward rule is linear in its cotangent, and gives the same bits each time it is asked.

No program is compiled for these: the rule that `accuracy` compiled is called with other cotangents. A rule whose meant
cotangents are given need not be linear: it is held to those at the same cotangents.
"""

from collections.abc import Iterator

import numpy as np

from refgrad.verify.case import FunctionCase
from refgrad.verify.numbers import difference, to_wide
from refgrad.verify.oracle import Leaves
from refgrad.verify.report import FAIL, OK, Row

ZERO, TWICE, SUM = "zero in, zero out", "twice in, twice out", "sum in, sum out"


def linearity(case: FunctionCase) -> Iterator[Row]:
    """The zero cotangent gives zero, twice a cotangent twice the gradient, a sum of cotangents the sum."""
    one, other = case.cotangent(0), case.cotangent(1)
    upstream = {
        ZERO: [np.zeros_like(c) for c in one],
        TWICE: [c + c for c in map(np.asarray, one)],  # 2 * c is a float32 for a bfloat16, in NumPy 2.0
        SUM: [np.asarray(a) + np.asarray(b) for a, b in zip(one, other, strict=True)],
    }
    got = {label: _pull(case, cts) for label, cts in upstream.items()}
    first, second = _pull(case, one), _pull(case, other)
    if case.reference_vjp is None:
        with np.errstate(invalid="ignore"):
            total = [a + b for a, b in zip(first, second, strict=True)]
        expected = {ZERO: [np.zeros_like(g) for g in first], TWICE: [2 * g for g in first], SUM: total}
        law = "not linear in the cotangent"
    else:
        expected = {label: case.lane.truth(case.diff, [to_wide(c) for c in cts]) for label, cts in upstream.items()}
        law = "not as the meant cotangents"
    for i, name in enumerate(case.subject.arguments):
        dtype = case.diff[i].dtype
        scale = max(case.scale(i, g, dtype, programs=2) for g in (first[i], second[i]))  # a sum may cancel
        found = {}
        for label, leaves in got.items():
            # 0 times an infinite slope is NaN in any rule, and an overflow is not a finding
            skip = ~np.isfinite(first[i])
            if label != ZERO:
                skip = ~(np.isfinite(leaves[i]) & np.isfinite(expected[label][i]))
            found[label] = case.apart(i, leaves[i], expected[label][i], scale, skip)
        broken = [label for label, (worst, allowed) in found.items() if not worst.error <= allowed]
        worst, allowed = max(found.values(), key=lambda pair: pair[0].error / (pair[1] or 1.0))
        note = f"{law}: not {', not '.join(broken)}" if broken else ""
        yield Row("linearity", name, FAIL if broken else OK, **worst.cells(), allowed=allowed, note=note)


def repeat(case: FunctionCase) -> Iterator[Row]:
    """The same call twice, bit for bit."""
    ct = case.cotangent(0)
    once, again = _pull(case, ct), _pull(case, ct)
    for name, a, b in zip(case.subject.arguments, once, again, strict=True):
        same = np.array_equal(a, b, equal_nan=True)
        found = difference(b, a)
        note = "" if same else "two identical calls give different bits"
        yield Row("repeat", name, OK if same else FAIL, **found.cells(), allowed=0.0, note=note)


def _pull(case: FunctionCase, cts: list) -> Leaves:
    return [to_wide(g) for g in case.rule(case.diff, case.rest, cts)[1]]
