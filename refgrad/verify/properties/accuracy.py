"""Accuracy: the rule against float64 truth and against autodiff, draw by draw, every entry.

Four rows an argument:
- `accuracy`: the rule at its own dtype against truth; at most the allowance;
- `float64`: the rule evaluated in float64 against truth. Its rounding is gone, so what is left is its mathematics;
- `autodiff`: the rule against autodiff of the plain forward at the same dtype; both may err, so twice the allowance;
- `median`: the rule's median error over the draws, against 1.25 times autodiff's own and a unit in the last place.

Where the function itself is so ill-conditioned that autodiff errs as much, a rule whose mathematics holds in float64
is not blamed for it.
"""

import dataclasses
import statistics
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np

from refgrad.verify.allowance import C
from refgrad.verify.case import Case
from refgrad.verify.numbers import Difference, difference, worst
from refgrad.verify.report import COMPILER, FAIL, LESS, OK, Row, number

NO_WORSE = 1.25  # times autodiff's own median error, beside one unit in the last place


@dataclasses.dataclass
class Errors:
    """The comparisons of one leaf over all draws."""

    truth: list[Difference] = dataclasses.field(default_factory=list)
    wide: list[Difference] = dataclasses.field(default_factory=list)
    autodiff: list[Difference] = dataclasses.field(default_factory=list)
    agreement: list[Difference] = dataclasses.field(default_factory=list)


def accuracy(case: Case) -> Iterator[Row]:
    """The rows of every argument, and one for each argument that meets a kink."""
    kinks = case.kinks
    errors = measure(case, kinks.skip)
    for i, name in enumerate(case.subject.arguments):
        kink = kinks.row(i, name, case.first.rule[i], case.first.truth[i], case.allowed[i])
        if kink is not None:
            yield kink
        rows = list(_rows(case, errors[i], i, name, kinks.skip[i]))
        if case.excuses and any(map(_off, rows)):
            rows = acquit(case, i, kinks.skip[i], rows)
        yield from rows


def measure(case: Case, skip: list[np.ndarray | None]) -> list[Errors]:
    """The errors of every leaf over the draws; entries in `skip` do not count."""
    errors = [Errors() for _ in case.diff]
    for k in range(case.draws):
        found = case.first if k == 0 else case.gradients(k)
        for i, e in enumerate(errors):
            e.truth.append(difference(found.rule[i], found.truth[i], skip[i]))
            if found.wide:
                e.wide.append(difference(found.wide[i], found.truth[i], skip[i]))
            if found.autodiff:
                e.autodiff.append(difference(found.autodiff[i], found.truth[i], skip[i]))
                e.agreement.append(difference(found.rule[i], found.autodiff[i], skip[i]))
    return errors


def _rows(case: Case, errors: Errors, i: int, name: str, skip: np.ndarray | None) -> Iterator[Row]:
    allowed = max(case.allowed[i], case.oracle.tolerance)
    mathematics = _mathematics(case, errors, i, name)
    row = _accuracy(errors, name, allowed, mathematics)
    yield row if case.narrow else dataclasses.replace(mathematics, property="accuracy")
    if errors.wide:
        yield mathematics
    if errors.autodiff:
        yield _agreement(errors, name, 2 * allowed, row)
        yield _median(case, errors, i, name, skip)


def _mathematics(case: Case, errors: Errors, i: int, name: str) -> Row:
    """The rule in float64 against truth in float64; where they differ, truth's own noise is allowed for."""
    found = worst(errors.wide or errors.truth)
    allowed, note = max(case.allowed_wide[i], case.oracle.tolerance), ""
    if found.error > allowed and found.error <= (uncertainty := case.uncertainty(i)):
        allowed, note = uncertainty, "the float64 truth itself is uncertain by as much"
    return Row("float64", name, OK if found.error <= allowed else FAIL, **found.cells(), allowed=allowed, note=note)


def _accuracy(errors: Errors, name: str, allowed: float, mathematics: Row) -> Row:
    found = worst(errors.truth)
    autodiff = worst(errors.autodiff).error if errors.autodiff else None
    verdict, note = OK, ""
    if found.error > allowed:
        verdict = FAIL
        if autodiff is not None and found.error <= C * autodiff and not mathematics.failed:
            verdict, note = OK, f"ill-conditioned: autodiff errs by {number(autodiff)}"
        elif not mathematics.failed:
            note = "right in float64, but unstable in this dtype"
            note += "" if autodiff is None else f" (autodiff errs by {number(autodiff)})"
    elif autodiff is not None and autodiff > allowed:
        note = f"more accurate than autodiff, which errs by {number(autodiff)}"
    return Row("accuracy", name, verdict, **found.cells(), allowed=allowed, note=note)


def _agreement(errors: Errors, name: str, allowed: float, accuracy: Row) -> Row:
    """The rule against autodiff at the same dtype: where they differ, truth has said which of them is off."""
    found = worst(errors.agreement)
    if found.error <= allowed:
        return Row("autodiff", name, OK, **found.cells(), allowed=allowed)
    note = "" if accuracy.failed else "it is autodiff that errs"
    return Row("autodiff", name, accuracy.verdict, **found.cells(), allowed=allowed, note=note)


def _median(case: Case, errors: Errors, i: int, name: str, skip: np.ndarray | None) -> Row:
    """Return the row that compares the rule's median error with autodiff's.

    Up to one unit in the last place is luck: compilers add the same terms in different orders. Where the draws at hand
    say "less accurate", four times as many are asked before the report does.
    """
    ulp = float(jnp.finfo(case.diff[i].dtype).eps)
    rule, autodiff = [d.error for d in errors.truth], [d.error for d in errors.autodiff]
    for k in range(case.draws, 4 * case.draws if statistics.median(rule) > _no_worse(autodiff, ulp) else 0):
        found = case.gradients(k)
        rule.append(difference(found.rule[i], found.truth[i], skip).error)
        autodiff.append(difference((found.autodiff or found.rule)[i], found.truth[i], skip).error)
    error, allowed = statistics.median(rule), _no_worse(autodiff, ulp)
    note = f"autodiff {number(statistics.median(autodiff))}"
    return Row("median", name, LESS if error > allowed else OK, error=error, allowed=allowed, note=note)


def _no_worse(autodiff: list[float], ulp: float) -> float:
    return NO_WORSE * statistics.median(autodiff) + ulp


def acquit(case: Case, i: int, skip: np.ndarray | None, rows: list[Row]) -> list[Row]:
    """The same rows with the compiler blamed in the rule's place, if the rule is right one primitive at a time."""
    found = case.uncompiled
    if found is None:
        return rows
    again = [Errors() for _ in case.diff]
    for k, e in enumerate(again):
        e.truth = [difference(found.rule[k], found.truth[k], skip)] if k == i else []
        e.wide = [difference(found.wide[k], found.truth[k], skip)] if k == i and found.wide else []
    if any(row.failed for row in _rows(case, again[i], i, rows[0].argument, skip)):
        return rows
    note = "right one primitive at a time: XLA's compiled program is wrong, not the rule"
    return [dataclasses.replace(r, verdict=COMPILER, note=note) if _off(r) else r for r in rows]


def _off(row: Row) -> bool:
    """Whether a row is red, or only excused because autodiff errs as much: a wrong compiler makes both err."""
    return row.failed or (row.property == "accuracy" and (row.error or 0.0) > (row.allowed or 0.0))
