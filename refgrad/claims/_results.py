"""A formula held against the truth at one case, and the text of what came out."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from refgrad.claims._formula import FormulaError, compared, evaluate, names

TOLERANCE = 1e-12  # of the largest entry of the truth, in float64; exact numbers must be equal


@dataclasses.dataclass(frozen=True)
class Case:
    """One shape or setting at which a formula is evaluated.

    Attributes:
      at: the shape or setting, in words.
      values: the names that the formula may use there.
      truth: the value that the oracle gives; True for a formula that is a statement.

    Example:
      >>> from refgrad.claims import Case, evaluate
      >>> case = Case("m=1", {"m": 1}, truth=2)
      >>> evaluate("2 * m", case.values) == case.truth
      True
    """

    at: str
    values: Mapping[str, Any]
    truth: Any = True


@dataclasses.dataclass(frozen=True)
class Result:
    """A formula at one case: its value or the error that it raised, and whether it equals the truth."""

    formula: str
    case: Case
    got: Any
    error: float
    problem: str = ""

    @classmethod
    def of(cls, formula: str, case: Case) -> "Result":
        """Evaluate `formula` at `case`; shapes that do not fit are a problem of the formula, not of the program."""
        try:
            got = evaluate(formula, case.values)
        except FormulaError:
            raise
        except (ValueError, IndexError) as error:
            return cls(formula, case, None, np.inf, f"shapes do not fit ({error})")
        if case.truth is True:
            return cls(formula, case, got, 0.0 if np.all(got) else np.inf)
        if _exact(got) and _exact(case.truth):
            return cls(formula, case, got, 0.0 if got == case.truth else np.inf)
        value, truth = (np.asarray(x, np.float64) for x in (got, case.truth))
        if value.shape != truth.shape:
            return cls(formula, case, got, np.inf, f"the shape is {value.shape}, but must be {truth.shape}")
        gap, scale = np.max(np.abs(value - truth), initial=0.0), np.max(np.abs(truth), initial=0.0)
        error = float(gap / (scale or 1.0))
        return cls(formula, case, got, np.inf if np.isnan(error) else error)

    @property
    def holds(self) -> bool:
        """True if the formula gives the truth."""
        return self.error <= TOLERANCE

    def __str__(self) -> str:
        """The counter-example: the case, the entry, the formula's value and the right one."""
        where = _at(self.case)
        if self.problem:
            return f"{where}{self.problem}"
        if self.case.truth is True:
            return f"{where}{_facts(self.formula, self.case)}"
        value, truth = np.asarray(self.got, np.float64), np.asarray(self.case.truth, np.float64)
        if not truth.shape:
            return f"{where}it gives {number(self.got)}, but right is {number(self.case.truth)}"
        gap = np.abs(value - truth)
        entry = np.unravel_index(np.argmax(np.where(np.isnan(gap), np.inf, gap)), truth.shape)
        place = ", ".join(map(str, entry))
        known = _relation(value, truth)
        return f"{where}entry [{place}] is {number(value[entry])}, but right is {number(truth[entry])}{known}"


def _relation(value: np.ndarray, truth: np.ndarray) -> str:
    """Name a simple relation of a wrong array to the right one: transposed, negated or a factor off; else ""."""

    def same(x: np.ndarray) -> bool:
        return x.shape == truth.shape and bool(np.max(np.abs(x - truth)) <= TOLERANCE * np.max(np.abs(truth)))

    if value.ndim == 2 and same(value.T):
        return " (it is the transpose of the right one)"
    if same(-value):
        return " (the sign is wrong)"
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.sum(value * truth) / np.sum(truth * truth)
        if factor and same(value / factor):
            return f" (it is {number(factor)} times the right one)"
    return ""


class CheckFigures(NamedTuple):
    """A check's figures as text: `full`, case by case, and `brief`, for a cell of a table.

    `distance` is that of the printed formula from the truth, where that is an array.
    """

    full: str = ""
    brief: str = ""
    distance: float | None = None


def figures(printed: str, corrected: str, results: Sequence[Result]) -> CheckFigures:
    """Exact numbers case by case, arrays by their distance from the truth, statements by the values in them."""
    cases = [result.case for result in results]
    if all(case.truth is True for case in cases):
        facts = [f"{_at(case)}{_facts(printed, case)}" for case in cases]
        return CheckFigures("; ".join(facts), "; ".join(facts[:1]) + (" …" if len(facts) > 1 else ""))
    if all(np.ndim(case.truth) == 0 for case in cases) or (len(cases) == 1 and np.size(cases[0].truth) <= 4):
        numbers = [number(case.truth) for case in cases]
        full = "; ".join(f"{_at(case)}{text}" for case, text in zip(cases, numbers, strict=True))
        return CheckFigures(full, ", ".join(numbers[:3] + (["…"] if len(numbers) > 3 else [])))
    distance = max(result.error for result in results)
    brief = _off(distance)
    if corrected:
        brief += f", corrected {_off(max(Result.of(corrected, case).error for case in cases))}"
    where = " | ".join(case.at for case in cases)
    return CheckFigures(f"{brief} (of the largest entry, in float64): {where}", brief, distance)


def _off(distance: float) -> str:
    return f"off by {distance:.1g}" if np.isfinite(distance) else "does not fit"


def _facts(formula: str, case: Case) -> str:
    """The values that a statement is about: in full where they are few, else from the least to the largest."""
    facts = []
    for name in names(formula):
        value = case.values.get(name)
        if value is None or callable(value):
            continue
        few = np.size(value) <= 4
        facts.append(f"{name} {number(value) if few else f'from {number(np.min(value))} to {number(np.max(value))}'}")
    for part in compared(formula):
        with contextlib.suppress(ValueError):  # of a listing, whose steps this part needs
            if np.ndim(value := evaluate(part, case.values)) == 0:
                facts.append(f"{part} = {number(value)}")
    return ", ".join(facts)


def _at(case: Case) -> str:
    return f"{case.at}: " if case.at else ""


def _exact(x: Any) -> bool:
    return isinstance(x, bool | int | Fraction)


def number(x: Any) -> str:
    """A number or a small array as text: integers in full, others to four digits."""
    if isinstance(x, bool | np.bool_):
        return "true" if x else "false"
    if isinstance(x, int | np.integer):
        return f"{int(x):,}"
    if isinstance(x, Fraction) and x.denominator == 1:
        return f"{x.numerator:,}"
    if isinstance(x, str):
        return x
    if not isinstance(x, Fraction) and np.ndim(x):
        return "[" + ", ".join(map(number, np.asarray(x).tolist())) + "]"
    value = float(x)
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e6 else f"{value:.4g}"
