"""One sentence for one cause: what is wrong with a rule, where its failing rows have a plain reason.

A rule that drops an argument fails in a row of almost every property. The report says so once, and folds the rows that
follow from it.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from refgrad.jaxpr.rules import HI
from refgrad.verify.case import FunctionCase
from refgrad.verify.numbers import errors, largest
from refgrad.verify.report import Row, number

FIRST = ("points", "accuracy", "float64", "autodiff")  # rows about the cotangents themselves
FOLLOWS = (*FIRST, "jacobian", "parts", "reverse over reverse", "forward over reverse", "jvp")
CLOSE = 1e-3  # relative difference up to which a gradient is a multiple of the truth


def explained(case: FunctionCase, rows: Sequence[Row]) -> list[Row]:
    """Return the rows, those that fail for a known cause with the cause; the first of them carries the sentence."""
    red = {row.argument for row in rows if row.failed and row.property in FIRST}
    reasons = {
        name: sentence
        for i, name in enumerate(case.subject.arguments)
        if name in red and (sentence := _cause(case, i, name))
    }
    return [
        dataclasses.replace(row, cause=reasons.get(row.argument) or _second_hand(case, row, reasons))
        if row.failed and row.property in FOLLOWS and not row.cause
        else row
        for row in rows
    ]


def _second_hand(case: FunctionCase, row: Row, reasons: dict[str, str]) -> str:
    """The cause of a second derivative's failure, or of a jvp rule's, which mix all arguments: any wrong gradient.

    Other methods of a HiPrim have faults of their own.
    """
    of_jvp = row.property == "jvp" and not any(rule.kind == HI for rule in case.rules)
    if reasons:
        return next(iter(reasons.values())) if of_jvp or "reverse" in row.property else ""
    if not of_jvp:
        return ""
    values = f"gives {number(row.got)} where {number(row.expected)} is right"
    return f"the jvp rule of {row.argument.partition(':')[0]} {values}{row.note and ', '}{row.note}"


def _cause(case: FunctionCase, i: int, name: str) -> str:
    """Return the sentence about leaf `i`; empty where no plain reason shows."""
    got, truth = _pair(case, i)
    known = ~np.isnan(truth)
    if got.size == 0 or not known.any():
        return ""
    if not np.isfinite(got[known]).any():
        return f"the rule returns no finite number for {name}"
    if not largest(truth) and known.all() and got.any():
        return f"the rule returns a gradient for {name}, on which the function does not depend"
    got, truth = got[known], truth[known]
    if not largest(truth):
        return ""
    if not got.any():
        return f"the rule always returns 0 for {name}"
    if _near(got, -truth):
        return f"the rule returns the negative of the gradient for {name}"
    if np.iscomplexobj(truth) and _near(got, np.conj(truth)):
        return f"the rule returns the complex conjugate of the gradient for {name}"
    return _multiple(got, truth, name)


def _pair(case: FunctionCase, i: int) -> tuple[np.ndarray, np.ndarray]:
    """The rule's cotangents of leaf `i` and the truth, in the widest precision available."""
    found = case.first_wide
    return found.got[i], np.where(np.isnan(case.points.truth[i]), np.nan, found.truth[i])


def _near(got: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.all(errors(got, expected) <= CLOSE * largest(expected)))


def _multiple(got: np.ndarray, truth: np.ndarray, name: str) -> str:
    """Return the sentence for a constant factor, where there is one over several entries."""
    factor = np.vdot(truth, got) / np.vdot(truth, truth)
    if truth.size < 2 or np.iscomplexobj(truth) or not np.isfinite(factor) or abs(factor - 1) < 1e-6:
        return ""
    residue = largest(got - factor * truth)
    if residue > min(CLOSE, abs(factor - 1) / 8) * largest(got):
        return ""
    return f"the rule returns {factor.real:.6g} times the gradient for {name}"
