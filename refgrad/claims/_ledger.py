"""The ledger's parts: a claim is data and what it is held against; its verdict is computed when it runs.

`_rows.py` reads the rows, and says how to write one. The verdict follows: printed holds everywhere → holds; holds
exactly where `when` is true → holds when …; fails somewhere and `corrected` holds everywhere → is wrong, because of the
first counter-example; anything else (also an error in a case) → undecided, which is a failure of the ledger. The row's
verdict is its worst check's.
"""

import dataclasses
import functools
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, ParamSpec

import numpy as np

from refgrad.claims._documents import DOCUMENTS
from refgrad.claims._formula import evaluate
from refgrad.claims._results import Case, CheckFigures, Result, figures

P = ParamSpec("P")
Cases = Callable[[], Iterable[Case]]
Kind = Literal["holds", "holds when", "is wrong", "undecided"]
KINDS: tuple[Kind, ...] = ("holds", "holds when", "is wrong", "undecided")


def deferred(make: Callable[P, Iterable[Case]]) -> Callable[P, Cases]:
    """Return `make` as a function that takes its arguments now and makes its cases when the row runs."""
    return lambda *args, **kwargs: functools.partial(make, *args, **kwargs)


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing that a document prints, as a formula, and the cases that decide it.

    Attributes:
      says: the statement in words.
      printed: the document's formula.
      cases: a function that makes the cases.
      corrected: the right formula, where the document's is wrong.
      when: a formula that is true in exactly the cases where `printed` holds.
      condition: the same in words.

    Example:
      >>> from refgrad.claims import Case, Check
      >>> Check("twice m", "2 * m", lambda: [Case(f"m={m}", {"m": m}, 2 * m) for m in (1, 2)]).run().kind
      'holds'
    """

    says: str
    printed: str
    cases: Cases
    corrected: str = ""
    when: str = ""
    condition: str = ""

    def judge(self, cases: Sequence[Case]) -> "Finding":
        """The verdict of this check at `cases`, and the figures that it rests on."""
        results = [Result.of(self.printed, case) for case in cases]
        shown = figures(self.printed, self.corrected, results)
        if results and all(result.holds for result in results):
            return Finding(self, "holds", shown)
        counter = next((str(result) for result in results if not result.holds), "the claim has no cases")
        if self.when and self._separates(results):
            return Finding(self, "holds when", shown, f"{self.condition}; otherwise not: {counter}")
        if self.corrected and all(Result.of(self.corrected, case).holds for case in cases):
            return Finding(self, "is wrong", shown, counter)
        if self.when:
            counter = f"{self.when} does not separate the cases; {counter}"
        elif self.corrected:
            counter = f"the corrected formula fails too; {counter}"
        return Finding(self, "undecided", shown, counter)

    def _separates(self, results: Sequence["Result"]) -> bool:
        """Return True if the condition holds in exactly the cases where the formula does, and in one at least."""
        marks = [bool(np.all(evaluate(self.when, result.case.values))) for result in results]
        return any(marks) and marks == [result.holds for result in results]

    def run(self, made: dict[Cases, list[Case]] | None = None) -> "Finding":
        """Make the cases, or take them from `made`, and judge; an error in either is an undecided finding."""
        made = {} if made is None else made
        try:
            if self.cases not in made:
                made[self.cases] = list(self.cases())
            return self.judge(made[self.cases])
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}"
            return Finding(self, "undecided", CheckFigures(), f"{type(error).__name__} at {place}: {error}")


@dataclasses.dataclass(frozen=True)
class Claim:
    """A row of the ledger: a document's statement, and the checks that decide it.

    Attributes:
      id: the document and a number, such as "D0.6".
      place: the heading of the section.
      says: the statement, in words of our own.
      runs: the evidence that is computed.
      checks: the formulas that decide it, with their cases.
      see: the ids of related rows.
      more: the command or experiment that shows more.
      ops: the operations whose derived rules are run.

    Example:
      >>> from refgrad.claims import LEDGER
      >>> LEDGER["D0.4"].document
      'D0'
    """

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
        """Every check of the row; cases that several share are made once."""
        made: dict[Cases, list[Case]] = {}
        return Outcome(self, tuple(check.run(made) for check in self.checks))

    def __str__(self) -> str:
        return self.id


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of one check: its verdict, its figures, and the reason where it does not simply hold.

    Attributes:
      check: the formula, with its cases.
      kind: "holds", "holds when", "is wrong" or "undecided".
      figures: the computed figures.
      reason: the condition, or the counter-example.

    Example:
      >>> from refgrad.claims import LEDGER, run_claim
      >>> {finding.kind for finding in run_claim(LEDGER["D0.4"]).findings}
      {'holds'}
    """

    check: Check
    kind: Kind
    figures: CheckFigures
    reason: str = ""

    def data(self) -> dict[str, str]:
        """The finding as plain data for JSON."""
        return {
            "says": self.check.says,
            "printed": self.check.printed,
            "corrected": self.check.corrected,
            "verdict": self.kind,
            "came_out": self.figures.full,
            "reason": self.reason,
        }


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of a row: a finding for each of its checks.

    Attributes:
      claim: the row.
      findings: a finding for each of its checks.

    Example:
      >>> from refgrad.claims import LEDGER, run_claim
      >>> run_claim(LEDGER["D0.4"]).verdict
      'holds'
    """

    claim: Claim
    findings: tuple[Finding, ...]

    def __reduce__(self) -> tuple:
        """Return what pickle needs: between processes a row goes by its id, since its cases are functions."""
        return _outcome, (self.claim.id, [(one.kind, one.figures, one.reason) for one in self.findings])

    @property
    def kind(self) -> Kind:
        """The worst of the checks' verdicts."""
        return KINDS[max((KINDS.index(finding.kind) for finding in self.findings), default=-1)]

    @property
    def ok(self) -> bool:
        """True if the row has a verdict."""
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
        several = len(self.findings) > 1
        reasons = [f"“{f.check.says}”: {f.reason}" if several else f.reason for f in self.deciding]
        joint = {"holds when": ", for " if several else " ", "is wrong": ", because ", "undecided": ": "}[self.kind]
        return self.kind + joint + "; ".join(reasons)

    @property
    def came_out(self) -> str:
        """The computed figures of every check, in brief; formulas that hold are taken together."""
        held = [f.figures.distance for f in self.findings if f.kind == "holds" and f.figures.distance is not None]
        parts = [f"{len(held)} formula{'s'[: len(held) - 1]} within {max(held):.1g}"] if held else []
        rest = (f for f in self.findings if f.kind != "holds" or f.figures.distance is None)
        return "; ".join(parts + [f.figures.brief for f in rest if f.figures.brief])

    @property
    def corrected(self) -> str:
        """The corrected formulas of the wrong ones."""
        return "; ".join(f.check.corrected for f in self.findings if f.kind == "is wrong")

    def data(self) -> dict[str, Any]:
        """The row as plain data, for JSON and for the page: text, and lists of text."""
        claim = self.claim
        return {
            "id": claim.id,
            "document": claim.document,
            "title": DOCUMENTS[claim.document].title,
            "citation": str(DOCUMENTS[claim.document]),
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


def _outcome(id: str, findings: Sequence[tuple[Kind, CheckFigures, str]]) -> Outcome:
    from refgrad.claims import LEDGER  # which the modules that import this one fill

    claim = LEDGER[id]
    return Outcome(claim, tuple(Finding(check, *one) for check, one in zip(claim.checks, findings, strict=True)))
