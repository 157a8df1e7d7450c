"""Finite differences in float64: is autodiff of the plain forward the derivative of the function at all?

A rule that agrees with autodiff where both differ from the function (a `stop_gradient`, a wrong rule further inside,
a `where` that hides a NaN) is told apart from a rule that differs from autodiff.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from refgrad.verify.case import Case
from refgrad.verify.numbers import draw, generator, to_wide
from refgrad.verify.oracle import Leaves, Wide
from refgrad.verify.report import FAIL, KINK, OK, UNAVAILABLE, Row

STEP = 1e-4  # relative to each entry, so that entries of all sizes move
CLOSE = 1e-6  # relative agreement of differences with a derivative, in float64
LIMITED = 100  # times both, where the forward could not be widened


def differences(case: Case) -> Iterator[Row]:
    """One row per argument: ⟨truth, v⟩ against the slope of ⟨cotangent, f⟩ along a random direction v."""
    if case.meant is not None or not case.oracle.entries or "differences" in case.oracle.kind:
        why = (
            "the cotangents are given" if case.meant is not None else "truth is itself made of products with directions"
        )
        yield Row("differences", "", UNAVAILABLE, note=why)
        return
    forward = Wide(lambda diff, rest: case.plain(diff, rest)[0], case.diff, case.rest)
    limited = LIMITED if forward.limits or forward.own_types else 1
    rng = generator(case.seed, 5)
    base = [to_wide(x) for x in case.diff]
    truth = case.first.truth
    rule = case.first.wide if case.first.wide else case.first.rule
    cts = [to_wide(c) for c in case.drawn(0)]
    for i, name in enumerate(case.subject.arguments):
        v = _direction(base[i], rng)
        still = ~np.isfinite(truth[i]) | (False if (kink := case.kinks.skip[i]) is None else kink)
        v = np.where(still, 0.0, v)
        if not v.any():
            yield Row("differences", name, KINK if v.size else OK, note="no entry to move" if v.size else "")
            continue
        slopes = [_slope(forward, case, base, cts, i, v, STEP * limited * s) for s in (1.0, 0.5)]
        products = [np.where(still, 0.0, np.real(np.where(still, 0.0, g[i]) * v)) for g in (truth, rule)]
        yield _row(name, slopes, products, limited)


def _direction(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random, in proportion to each entry (to the leaf's size where it is 0); infinite entries stay."""
    size = np.abs(x)
    finite = np.isfinite(size)
    mean = float(np.sqrt(np.mean(size[finite] ** 2))) if finite.any() else 1.0
    scale = np.where(finite, np.where(size > 0, np.where(finite, size, 0.0), mean or 1.0), 0.0)
    return draw(rng, x.shape, x.dtype) * scale


def _slope(forward: Wide, case: Case, base: Leaves, cts: Leaves, i: int, v: np.ndarray, h: float) -> float:
    """(⟨ct, f(x + hv)⟩ − ⟨ct, f(x − hv)⟩) / 2h, entries that are not finite on both sides left out."""

    def moved(sign: float) -> Leaves:
        return forward([x + sign * h * v if k == i else x for k, x in enumerate(base)], case.rest)

    total = 0.0
    for c, above, below in zip(cts, moved(1.0), moved(-1.0), strict=True):
        with np.errstate(invalid="ignore"):
            step = np.real(c * (above - below))
        total += float(np.sum(step, where=np.isfinite(step)))
    return total / (2 * h)


def _row(name: str, slopes: list[float], products: list[np.ndarray], limited: int) -> Row:
    coarse, fine = slopes
    slope = (4 * fine - coarse) / 3
    truth, rule = (float(np.sum(p)) for p in products)
    scale = max(abs(slope), *(float(np.sqrt(np.sum(p**2))) for p in products)) or 1.0
    uncertain = abs(fine - coarse) / scale
    allowed = CLOSE * limited + uncertain
    error = abs(truth - slope) / scale
    cells: dict[str, Any] = {"got": truth, "expected": slope, "error": error, "allowed": allowed}
    if uncertain > 0.01:
        return Row("differences", name, KINK, **cells, note="differences do not settle: a kink or a jump is near")
    if error <= allowed:
        return Row("differences", name, OK, **cells)
    if abs(rule - slope) / scale <= allowed:
        note = "the rule agrees with the function, autodiff of the plain forward does not"
    elif abs(rule - truth) / scale <= allowed:
        note = "rule and autodiff agree, and both differ from the function"
    else:
        note = "rule and autodiff both differ from the function, and from each other"
    return Row("differences", name, FAIL, **cells, note=note)
