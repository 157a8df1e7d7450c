"""Accuracy: the rule against truth and against autodiff, draw by draw, every entry.

Four rows an argument:
- `accuracy`: the rule at its own dtype against truth; at most the allowance;
- `float64`: the rule evaluated in float64 against truth. Its rounding is gone, so what is left is its mathematics;
- `autodiff`: the rule against autodiff of the plain forward at the same dtype; both may err, so twice the allowance;
- `median`: the rule's median error over the draws, against 1.25 times autodiff's own and a unit in the last place.

Where the truth itself moves when an argument moves to its neighbour, or autodiff errs as much at the same entry, a rule
whose mathematics holds in float64 is not blamed for that entry. Entries without one derivative are judged in `points`.
"""

import dataclasses
import statistics
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from refgrad.verify.allowance import C
from refgrad.verify.case import LARGEST, UNCERTAIN, FunctionCase, Gradients
from refgrad.verify.numbers import WorstEntry, at_worst, errors
from refgrad.verify.oracle import Leaves
from refgrad.verify.report import COMPILER, FAIL, LESS, NOT_DECIDED, OK, RIGHT, Row, number

NO_WORSE = 1.25  # times autodiff's own median error, beside one unit in the last place
WIDE_DRAWS = 2  # of the rule in float64: its errors do not vary with the draw
FAR = 8  # allowances between a compiled program and its own steps, above which the compiler is wrong


@dataclasses.dataclass
class LeafCotangents:
    """The cotangents of one leaf in every draw, as the rule, truth and autodiff have them.

    Truth is NaN at entries that are not compared.
    """

    got: list[np.ndarray] = dataclasses.field(default_factory=list)
    truth: list[np.ndarray] = dataclasses.field(default_factory=list)
    autodiff: list[np.ndarray] = dataclasses.field(default_factory=list)

    def add(self, found: Gradients, truth: np.ndarray, i: int) -> None:
        """Add one draw."""
        self.got.append(found.got[i])
        self.truth.append(truth)
        if found.autodiff:
            self.autodiff.append(found.autodiff[i])


class WorstDraw(NamedTuple):
    """The worst entry over all draws, and its draw."""

    found: WorstEntry
    draw: int


class Errors:
    """The error of every entry in every draw, relative to the leaf's scale; −1 for an entry without truth."""

    def __init__(
        self,
        case: FunctionCase,
        i: int,
        got: list[np.ndarray],
        expected: list[np.ndarray],
        leaf: LeafCotangents,
        dtype=None,
    ):
        """Compare leaf `i`; `dtype` is that of `got`, float64 where it is not given."""
        self.got, self.expected = got, expected
        self.entries = [
            np.where(np.isnan(t), -1.0, errors(g, e) / case.scale(i, t, dtype))
            for g, e, t in zip(got, expected, leaf.truth, strict=True)
        ]

    def worst(self, rank: list[np.ndarray] | None = None) -> WorstDraw:
        """Return the entry with the largest error, or the one that ranks highest."""
        rank = self.entries if rank is None else rank
        if rank[0].size == 0:
            return WorstDraw(WorstEntry(0.0, None, None, None), 0)
        k = int(np.argmax([np.max(r) for r in rank]))
        return WorstDraw(at_worst(rank[k], self.got[k], self.expected[k], self.entries[k]), k)


def accuracy(case: FunctionCase) -> Iterator[Row]:
    """The rows of every argument, and one for each argument that has entries without one derivative."""
    for i, (name, leaf, wide) in enumerate(_leaves(case, case.draws)):
        yield from _points(case, leaf, i, name)
        rows = list(_rows(case, leaf, wide, i, name))
        if case.retry_uncompiled and any(map(_off, rows)):
            rows = attributed(case, leaf, wide, i, rows)
        yield from rows


def first_draw(case: FunctionCase) -> Iterator[Row]:
    """The rows of the first draw that compare with truth, and no others."""
    for i, (name, leaf, wide) in enumerate(_leaves(case, 1)):
        yield from _points(case, leaf, i, name)
        mathematics = _mathematics(case, wide or leaf, i, name)
        if wide:
            yield _accuracy(case, leaf, i, name, max(case.allowed[i], case.own.tolerance), mathematics)
        yield mathematics


def _leaves(case: FunctionCase, draws: int) -> Iterator[tuple[str, LeafCotangents, LeafCotangents | None]]:
    """The name of every leaf, and its cotangents at the given dtypes and in float64, where that is another one."""
    leaves = _measured(case, draws, lambda k: case.first if k == 0 else case.gradients(k), case.points.truth)
    wides: list[LeafCotangents | None] = [None] * len(leaves)
    if case.narrow:
        found = lambda k: case.first_wide if k == 0 else case.mathematics(k)  # noqa: E731
        truth = case.points.truth if case.own is case.lane else case.first_wide.truth
        wides = [*_measured(case, min(draws, WIDE_DRAWS), found, truth)]
    return zip(case.subject.arguments, leaves, wides, strict=True)


def _points(case: FunctionCase, leaf: LeafCotangents, i: int, name: str) -> list[Row]:
    scale = case.scale(i, leaf.truth[0], case.diff[i].dtype)
    autodiff = leaf.autodiff[0] if leaf.autodiff else None
    return case.points.rows(i, name, leaf.got[0], case.allowed[i], scale, autodiff)


def _measured(case: FunctionCase, draws: int, found: Callable[[int], Gradients], truth: Leaves) -> list[LeafCotangents]:
    """The cotangents of every leaf over the draws; `truth` is that of the first."""
    leaves = [LeafCotangents() for _ in case.diff]
    for k in range(draws):
        if k and case.clock.over:
            break
        gradients = found(k)
        for i, leaf in enumerate(leaves):
            leaf.add(gradients, case.judged(gradients.truth if k else truth, i, k), i)
    return leaves


def _rows(case: FunctionCase, leaf: LeafCotangents, wide: LeafCotangents | None, i: int, name: str) -> Iterator[Row]:
    allowed = max(case.allowed[i], case.own.tolerance)
    mathematics = _mathematics(case, wide or leaf, i, name)
    row = _accuracy(case, leaf, i, name, allowed, mathematics) if wide else mathematics
    yield dataclasses.replace(row, property="accuracy")
    if wide:
        yield mathematics
    if leaf.autodiff:
        yield _agreement(case, leaf, i, name, 2 * allowed, row)
    if wide and leaf.autodiff:
        yield _median(case, leaf, i, name)


def _mathematics(case: FunctionCase, leaf: LeafCotangents, i: int, name: str) -> Row:
    """The rule in float64 against truth; where they differ, the truth's own movement in float64 is allowed for."""
    found = Errors(case, i, leaf.got, leaf.truth, leaf)
    allowed, worst = max(case.allowed_wide[i], case.lane.tolerance), found.worst()
    if worst.found.error <= allowed:
        return Row("float64", name, OK, **worst.found.cells(), allowed=allowed)
    slack, excess = np.zeros(()), found.entries
    noise = [case.noise[i]] * len(leaf.truth)
    for moves in (lambda: noise, lambda: _rounding_wide(case, leaf, i)):  # autodiff is compiled only where it counts
        moved = [C * m / case.scale(i, t) for m, t in zip(moves(), leaf.truth, strict=True)]
        slack = np.maximum(slack, moved)
        each = zip(found.entries, slack, strict=True)
        most = LARGEST if case.rounded else UNCERTAIN
        excess = [e - np.maximum(allowed, np.where(s <= most, s, 0.0)) for e, s in each]
        if all(np.all(x <= 0) for x in excess):
            break
    if all(np.all(x <= 0) for x in excess):
        note = f"the truth moves between neighbours in float64, or autodiff errs, by {number(np.max(slack) / C)}"
        return Row("float64", name, OK, **worst.found.cells(), allowed=float(np.max(slack)), note=note)
    worst = found.worst(excess)
    return Row("float64", name, FAIL, **worst.found.cells(), allowed=allowed, note=_agreed(leaf, worst, allowed))


def _rounding_wide(case: FunctionCase, leaf: LeafCotangents, i: int) -> Leaves:
    """The error of autodiff in float64 at each entry of leaf `i`, draw by draw."""
    found = []
    for k, truth in enumerate(leaf.truth):
        leaves = [truth if j == i else np.zeros(np.shape(x)) for j, x in enumerate(case.diff)]
        found.append(case.errors_wide(leaves, case.arguments(k), case.drawn(k))[i])
    return found


def _accuracy(case: FunctionCase, leaf: LeafCotangents, i: int, name: str, allowed: float, mathematics: Row) -> Row:
    """The rule in its own dtype against truth: no entry is excused by another one."""
    dtype = case.diff[i].dtype
    found = Errors(case, i, leaf.got, leaf.truth, leaf, dtype)
    autodiff = Errors(case, i, leaf.autodiff, leaf.truth, leaf, dtype) if leaf.autodiff else None
    worst, errs = found.worst(), autodiff.worst().found.error if autodiff else 0.0
    if allowed >= worst.found.error > max(LARGEST, case.tolerance) and not mathematics.failed:
        note = f"rounding alone may reach {number(allowed)} in {dtype}: it is in float64 that the rule is checked"
        return Row("accuracy", name, NOT_DECIDED, **worst.found.cells(), allowed=allowed, note=note)
    if worst.found.error <= allowed:
        note = f"more accurate than autodiff, which errs by {number(errs)}" if errs > allowed else ""
        return Row("accuracy", name, OK, **worst.found.cells(), allowed=allowed, note=note)
    if mathematics.failed:
        note = _agreed(leaf, worst, allowed)
        return Row("accuracy", name, FAIL, **worst.found.cells(), allowed=allowed, note=note)
    moves = case.conditioning[i] / case.scale(i, leaf.truth[0], dtype)
    rounding = [case.rounding(i, a, t) for a, t in zip(leaf.autodiff or leaf.truth, leaf.truth, strict=True)]
    slack = C * (moves + np.fmax.reduce(rounding))  # one draw may be a lucky one for autodiff
    if any(np.any(e > np.maximum(allowed, slack)) for e in found.entries):
        slack = slack + C * case.rounding_aside[i]
    excess = [e - np.maximum(allowed, slack) for e in found.entries]
    bad = any(np.any(x > 0) for x in excess)
    worst = found.worst(excess) if bad else worst
    note = f"the truth moves by {number(float(np.max(moves, initial=0.0)))} between neighbouring arguments"
    note += f", autodiff errs by {number(errs)}" if autodiff else ""
    head = "right in float64, but " + ("unstable" if np.isfinite(worst.found.error) else "overflows") + " in this dtype"
    note = f"{head if bad else 'ill-conditioned'}: {note}"
    return Row("accuracy", name, FAIL if bad else OK, **worst.found.cells(), allowed=allowed, note=note)


def _agreed(leaf: LeafCotangents, worst: WorstDraw, allowed: float) -> str:
    """Return the note that autodiff is off in the same way as the rule, if it is."""
    if not leaf.autodiff or worst.found.index is None:
        return ""
    rule, autodiff = (x[worst.draw][worst.found.index] for x in (leaf.got, leaf.autodiff))
    same = np.abs(rule - autodiff) <= 2 * allowed * max(np.abs(rule), np.abs(autodiff))
    return "rule and autodiff agree, and both differ from the function" if same else ""


def _agreement(case: FunctionCase, leaf: LeafCotangents, i: int, name: str, allowed: float, accuracy: Row) -> Row:
    """The rule against autodiff at the same dtype: where they differ, truth has said which of them is off."""
    found = Errors(case, i, leaf.got, leaf.autodiff, leaf, case.diff[i].dtype)
    worst = found.worst().found
    if worst.error <= allowed or accuracy.failed:
        return Row("autodiff", name, FAIL if worst.error > allowed else OK, **worst.cells(), allowed=allowed)
    moves = C * case.conditioning[i]
    with np.errstate(invalid="ignore"):
        broken = any(
            np.any((e > allowed) & ~(errors(a, t) <= np.maximum(LARGEST * np.abs(t), moves)))
            for a, t, e in zip(leaf.autodiff, leaf.truth, found.entries, strict=True)
        )
    verdict, note = (RIGHT, "") if broken else (OK, "it is autodiff that errs")
    return Row("autodiff", name, verdict, **worst.cells(), allowed=allowed, note=note)


def _median(case: FunctionCase, leaf: LeafCotangents, i: int, name: str) -> Row:
    """Return the row that compares the rule's median error with autodiff's.

    Up to one unit in the last place is luck: compilers add the same terms in different orders. Where the draws at hand
    say "less accurate", four times as many are asked before the report does.
    """
    dtype = case.diff[i].dtype
    rule, autodiff = _largest(case, i, leaf.got, leaf), _largest(case, i, leaf.autodiff, leaf)
    allowed = _no_worse(autodiff, dtype)
    if statistics.median(rule) > allowed:
        more = LeafCotangents()
        for k in range(case.draws, 4 * case.draws):
            if case.clock.over:
                break
            found = case.gradients(k)
            more.add(found, case.judged(found.truth, i, k), i)
        rule += _largest(case, i, more.got, more)
        autodiff += _largest(case, i, more.autodiff, more)
        allowed = _no_worse(autodiff, dtype)
    error, note = statistics.median(rule), f"autodiff {number(statistics.median(autodiff))}"
    return Row("median", name, LESS if error > allowed else OK, error=error, allowed=allowed, note=note)


def _largest(case: FunctionCase, i: int, got: list[np.ndarray], leaf: LeafCotangents) -> list[float]:
    """The largest error of each draw."""
    found = Errors(case, i, got, leaf.truth, leaf, case.diff[i].dtype)
    return [float(np.max(e, initial=0.0)) for e in found.entries]


def _no_worse(autodiff: list[float], dtype) -> float:
    return NO_WORSE * statistics.median(autodiff) + float(jnp.finfo(dtype).eps)


def attributed(
    case: FunctionCase, leaf: LeafCotangents, wide: LeafCotangents | None, i: int, rows: list[Row]
) -> list[Row]:
    """The same rows with the compiler blamed in the rule's place, where it is the compiler's fault.

    So it is if the rule is right one primitive at a time, and far from that when it is compiled, in the same draw.
    """
    found = case.uncompiled
    if found is None:
        return rows
    pairs = [(leaf, found[0], case.diff[i].dtype, case.allowed[i]), (wide, found[1], None, case.allowed_wide[i])]
    again = [LeafCotangents([steps[i]], [found[2][i]]) if own and steps else None for own, steps, _, _ in pairs]
    apart = [
        Errors(case, i, own.got[:1], alone.got, alone, dtype).worst().found.error / allowed
        for alone, (own, _, dtype, allowed) in zip(again, pairs, strict=True)
        if alone and own
    ]
    assert again[0] is not None
    if max(apart) <= FAR or any(row.failed for row in _rows(case, again[0], again[1], i, rows[0].argument)):
        return rows
    note = "right one primitive at a time: XLA's compiled program is wrong, not the rule"
    return [dataclasses.replace(r, verdict=COMPILER, note=note) if _off(r) else r for r in rows]


def _off(row: Row) -> bool:
    """Return True for a red row, or one only excused because autodiff errs as much: a wrong compiler makes both err."""
    return row.failed or (row.property == "accuracy" and (row.error or 0.0) > (row.allowed or 0.0))
