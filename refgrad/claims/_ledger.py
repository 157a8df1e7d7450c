"""The ledger's parts: a claim is data and what it is held against; its verdict is computed when it runs.

How to write a row (an example is D0.4 in `d0.py`; modules without a leading underscore are found by themselves):

1. `Case(at, values, truth)` is one shape or setting: the names that the formula may use (NumPy arrays in float64, or
   Python integers, which stay exact) and what the oracle says there. `_oracle.py` makes truths: `gradients(f, *args)`
   runs the project's derived rule and autodiff of the plain forward, and insists that they agree; counts come from
   `cost.count`, `cost.count_backward` and `cost.residuals`. Without a truth, the formula is a statement that must be
   true there, such as "backward <= few * forward", its thresholds named among the values (`bounds`).
2. `Check(says, printed, cases, corrected="", when="", condition="")` is one thing that the document prints. `printed`
   and `corrected` are formulas (`_formula.py`), `cases` a function without arguments that yields cases, three
   non-square shapes at least where shapes are free. `when` is a formula over the cases' values that must be true
   exactly where `printed` holds, `condition` the same in words.
3. `Claim(id, place, says, runs, checks, see=(…), more="…", ops=(…))` is the row: place is the section's heading, says
   is in words of our own, runs says what is evaluated, see names related rows, more the command or experiment that
   shows more, ops the operations whose derived rules were run.
4. The module's `CLAIMS` is the tuple of its rows.

The verdict follows: printed holds everywhere → holds; holds exactly where `when` is true → holds when …; fails
somewhere and `corrected` holds everywhere → is wrong, because of the first counter-example; anything else (also an
error in a case) → undecided, which is a failure of the ledger. The row's verdict is its worst check's.
"""

import dataclasses
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from refgrad.claims._formula import FormulaError, evaluate, names

Kind = Literal["holds", "holds when", "is wrong", "undecided"]
KINDS: tuple[Kind, ...] = ("holds", "holds when", "is wrong", "undecided")
TOLERANCE = 1e-12  # of the largest entry of the truth, in float64; exact numbers must be equal
DOCUMENTS = {
    "D0": "Backpropagation: From Intuition to FLOPs",
    "D1": "Backpropagation",
    "D2": "Backpropagating through GPT-2",
    "D3": "Neural network and backpropagation",
    "D4": "An Exercise in Backpropagation",
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One shape or setting: where it is, the names that a formula may use there, and what the oracle says."""

    at: str
    values: Mapping[str, Any]
    truth: Any = True


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing that a document prints, as a formula, and the cases that decide it."""

    says: str
    printed: str
    cases: Callable[[], Iterable[Case]]
    corrected: str = ""
    when: str = ""
    condition: str = ""

    def judge(self, cases: Sequence[Case]) -> "Finding":
        """The verdict of this check at `cases`, and the figures that it rests on."""
        results = [Result.of(self.printed, case) for case in cases]
        figures = _figures(self, results)
        if results and all(result.holds for result in results):
            return Finding(self, "holds", figures)
        counter = next((str(result) for result in results if not result.holds), "there are no cases")
        if self.when and self._separates(results):
            return Finding(self, "holds when", figures, f"{self.condition}; otherwise not: {counter}")
        if self.corrected and all(Result.of(self.corrected, case).holds for case in cases):
            return Finding(self, "is wrong", figures, counter)
        if self.when:
            counter = f"{self.when} does not separate the cases; {counter}"
        elif self.corrected:
            counter = f"the corrected formula fails too; {counter}"
        return Finding(self, "undecided", figures, counter)

    def _separates(self, results: Sequence["Result"]) -> bool:
        """Whether the condition is true exactly where the formula holds, and there is such a case."""
        marks = [bool(np.all(evaluate(self.when, result.case.values))) for result in results]
        return any(marks) and marks == [result.holds for result in results]

    def run(self) -> "Finding":
        """Make the cases and judge; an error in either is an undecided finding."""
        try:
            return self.judge(list(self.cases()))
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}"
            return Finding(self, "undecided", "", f"{type(error).__name__} at {place}: {error}")


@dataclasses.dataclass(frozen=True)
class Claim:
    """A row of the ledger: what a document says, and the checks that decide it."""

    id: str
    place: str
    says: str
    runs: str
    checks: tuple[Check, ...]
    see: tuple[str, ...] = ()
    more: str = ""
    ops: tuple[str, ...] = ()

    @property
    def document(self) -> str:
        """The document's short name: "D0"."""
        return self.id.partition(".")[0]

    def run(self) -> "Outcome":
        """Every check of the row."""
        return Outcome(self, tuple(check.run() for check in self.checks))

    def __str__(self) -> str:
        return self.id


@dataclasses.dataclass(frozen=True)
class Finding:
    """What came out of one check: the verdict, its figures, and the reason where it does not simply hold."""

    check: Check
    kind: Kind
    figures: str
    reason: str = ""

    def data(self) -> dict[str, str]:
        """The finding as plain data for JSON."""
        return {
            "says": self.check.says,
            "printed": self.check.printed,
            "corrected": self.check.corrected,
            "verdict": self.kind,
            "came_out": self.figures,
            "reason": self.reason,
        }


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came out of a row."""

    claim: Claim
    findings: tuple[Finding, ...]

    @property
    def kind(self) -> Kind:
        """The worst of the checks' verdicts."""
        return max((finding.kind for finding in self.findings), key=KINDS.index, default="undecided")

    @property
    def ok(self) -> bool:
        """Whether there is a verdict."""
        return self.kind != "undecided"

    @property
    def deciding(self) -> tuple[Finding, ...]:
        """The findings that have the row's verdict."""
        return tuple(finding for finding in self.findings if finding.kind == self.kind)

    @property
    def verdict(self) -> str:
        """The verdict in words, with its reasons."""
        if self.kind == "holds":
            return "holds"
        named = len(self.findings) > 1
        reasons = [f"{f.check.says}: {f.reason}" if named else f.reason for f in self.deciding]
        joints = {"holds when": " ", "is wrong": ", because ", "undecided": ": "}
        if named and self.kind == "holds when":
            reasons = [f"(for {f.check.says}) {f.reason}" for f in self.deciding]
        return self.kind + joints[self.kind] + "; ".join(reasons)

    @property
    def came_out(self) -> str:
        """The computed figures of every check."""
        return "; ".join(finding.figures for finding in self.findings if finding.figures)

    @property
    def corrected(self) -> str:
        """The corrected formulas of what is wrong."""
        return "; ".join(f.check.corrected for f in self.findings if f.kind == "is wrong")

    def data(self) -> dict[str, Any]:
        """The row as plain data, for JSON and for the page: text, and lists of text."""
        claim = self.claim
        return {
            "id": claim.id,
            "document": claim.document,
            "title": DOCUMENTS[claim.document],
            "place": claim.place,
            "says": claim.says,
            "ran": claim.runs,
            "came_out": self.came_out,
            "verdict": self.kind,
            "reason": self.verdict,
            "printed": [finding.check.printed for finding in self.findings],
            "corrected": self.corrected,
            "checks": [finding.data() for finding in self.findings],
            "see": list(claim.see),
            "more": claim.more,
            "ops": [f"refgrad/ops/{name}.py" for name in claim.ops],
        }


@dataclasses.dataclass(frozen=True)
class Result:
    """A formula at one case: its value or the error that it raised, and whether it equals the truth."""

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
            return cls(case, None, np.inf, f"shapes do not fit ({error})")
        if _exact(got) and _exact(case.truth):
            return cls(case, got, 0.0 if got == case.truth else np.inf)
        value, truth = (np.asarray(x, np.float64) for x in (got, case.truth))
        if value.shape != truth.shape:
            return cls(case, got, np.inf, f"the shape is {value.shape}, but must be {truth.shape}")
        gap, scale = np.max(np.abs(value - truth), initial=0.0), np.max(np.abs(truth), initial=0.0)
        return cls(case, got, float(gap / (scale or 1.0)))

    @property
    def holds(self) -> bool:
        """Whether the formula gives the truth; NaN does not."""
        return self.error <= TOLERANCE

    def __str__(self) -> str:
        """The counter-example: the case, the entry, what the formula gives and what is right."""
        where = f"at {self.case.at}" if self.case.at else "here"
        if self.problem:
            return f"{where} {self.problem}"
        if self.case.truth is True:
            return f"{where} it is false"
        value, truth = np.asarray(self.got, np.float64), np.asarray(self.case.truth, np.float64)
        if not truth.shape:
            return f"{where} it gives {number(self.got)}, but right is {number(self.case.truth)}"
        entry = np.unravel_index(np.nanargmax(np.abs(value - truth)), truth.shape)
        place = ", ".join(map(str, entry))
        known = _relation(value, truth)
        return f"{where} entry [{place}] is {number(value[entry])}, but right is {number(truth[entry])}{known}"


def _relation(value: np.ndarray, truth: np.ndarray) -> str:
    """How a wrong array is related to the right one, where it is simply: transposed, negated, a factor off."""

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


def _figures(check: Check, results: Sequence[Result]) -> str:
    """What came out, as text: exact numbers case by case, arrays by their largest difference, statements by the
    scalars that stand in them."""
    if not results:
        return ""
    if results[0].case.truth is True:
        return "; ".join(_facts(check.printed, result.case) for result in results)
    if all(np.ndim(result.case.truth) == 0 for result in results):
        return "; ".join(f"{_at(result.case)}{number(result.case.truth)}" for result in results)
    if len(results) == 1 and np.size(results[0].case.truth) <= 4:
        return number(results[0].case.truth)
    formula = check.printed if all(result.holds for result in results) else check.corrected
    if not formula or not all((again := Result.of(formula, result.case)).holds for result in results):
        return f"{len(results)} cases"
    worst = max(Result.of(formula, result.case).error for result in results)
    which = "printed" if formula == check.printed else "corrected"
    return f"{which}: within {worst:.0e} of the truth at {' | '.join(result.case.at for result in results)}"


def _facts(formula: str, case: Case) -> str:
    """The small values that a statement is about."""
    shown = [(name, case.values[name]) for name in names(formula) if np.size(case.values.get(name, ())) in range(1, 5)]
    return _at(case) + ", ".join(f"{name} {number(value)}" for name, value in shown)


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
    if np.ndim(x):
        return "[" + ", ".join(map(number, np.asarray(x).tolist())) + "]"
    value = float(x)
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e6 else f"{value:.4g}"
