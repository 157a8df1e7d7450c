"""Outcome of `blame`: a verdict for each call of a rule, as a table for a person and as JSON for a program."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from refgrad._text import table, wrapped
from refgrad.verify.report import number

WRONG = "wrong"
INHERITED = "wrong inside"  # a rule called by its forward is wrong: nothing is known of its own
SILENT = "no cotangent"  # nothing flows back to this call, so that nothing can be said of its rule


@dataclasses.dataclass(frozen=True)
class CallVerdict:
    """One call of a rule: where, on what, and how far its worst leaf is from the truth, relative to that leaf's size.

    `leaf` is `argument i` (the i-th leaf of the call's arguments) or `value i` (of its `_fwd`'s outputs).
    """

    call: int
    rule: str
    place: str
    backward: str
    trips: str
    within: int | None
    shapes: str
    leaf: str
    error: float
    allowed: float
    verdict: str
    note: str = ""

    @property
    def excess(self) -> float:
        """Error over allowance: above 1 the rule is wrong."""
        return self.error / self.allowed if self.allowed else float(self.error > 0) * np.inf

    def cells(self) -> tuple[str, ...]:
        """The row as text, a cell for each of `HEADER`."""
        rule = self.rule if self.within is None else f"{self.rule} (in call {self.within})"
        figures = number(self.error), number(self.allowed)
        return str(self.call), rule, self.place, self.trips, self.shapes, self.leaf, *figures, self.verdict


HEADER = ("call", "rule", "called at", "trip", "inputs", "worst leaf", "error", "allowed", "verdict")


@dataclasses.dataclass(frozen=True)
class Blame(Sequence):
    """A `CallVerdict` for every call of a rule, in execution order. Prints as a table, the guilty first.

    `unseen` are calls that could not be run in place, and rules that were applied before they could be seen; `limits`
    the places where truth has only the program's own precision.
    """

    rows: tuple[CallVerdict, ...]
    unseen: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()

    def __getitem__(self, i):
        return self.rows[i]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def guilty(self) -> tuple[CallVerdict, ...]:
        """The calls whose own rule is wrong, worst first."""
        return tuple(sorted((r for r in self.rows if r.verdict == WRONG), key=lambda r: -r.excess))

    @property
    def ok(self) -> bool:
        """True if no rule is wrong."""
        return not self.guilty

    def __str__(self) -> str:
        heads = dict.fromkeys(
            wrapped(f"WRONG: {r.rule}, called at {r.place}; its backward: {r.backward}") for r in self.guilty
        )
        notes = [wrapped(note) for note in (*(f"unseen: {u}" for u in self.unseen), *self.limits)]
        count = f"{len(self)} calls of rules, {len(self.guilty)} wrong"
        return "\n".join(
            [
                count,
                *heads,
                *notes,
                table(HEADER, [row.cells() for row in self.rows], notes=[row.note for row in self.rows]),
            ]
        )

    def data(self) -> dict[str, Any]:
        """The same as plain dicts, lists, strings and numbers (non-finite ones as strings)."""
        rows = [
            {k: str(v) if isinstance(v, float) and not np.isfinite(v) else v for k, v in dataclasses.asdict(r).items()}
            for r in self.rows
        ]
        return {"ok": self.ok, "rows": rows, "unseen": list(self.unseen), "limits": list(self.limits)}

    def json(self) -> str:
        """`data()` as JSON text."""
        return json.dumps(self.data(), ensure_ascii=False, indent=1)
