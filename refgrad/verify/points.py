"""Entries at which truth is more than one number: kinks, jumps, ends of the domain, and what is not decided.

Each is left out of the other comparisons and judged in a row of its own. At a kink a rule may take either one-sided
slope or any value between, at the end of the domain the slope from inside. Where the function jumps, is not finite, or
is not decided, there is nothing to compare with, and the row says so. A rule that is NaN at a jump, where autodiff of
the plain forward is finite, fails: one such entry makes every parameter of a model NaN. ±∞ is the limit of the slopes
there, and passes.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from refgrad.verify import ties
from refgrad.verify.exact import Entry, EntryVerdict
from refgrad.verify.exact_oracle import ExactOracle, Place, kink, slopes, smooth, unknown
from refgrad.verify.kinks import JUMP as STEEP
from refgrad.verify.kinks import Sides
from refgrad.verify.numbers import clipped, errors, largest
from refgrad.verify.oracle import Leaves
from refgrad.verify.report import END, FAIL, JUMP, KINK, NOT_DECIDED, NOT_FINITE, OK, Row, number
from refgrad.verify.ties import TieSum

WORDS = {
    EntryVerdict.KINK: KINK,
    EntryVerdict.JUMP: JUMP,
    EntryVerdict.END: END,
    EntryVerdict.NOT_FINITE: NOT_FINITE,
    EntryVerdict.UNDECIDED: NOT_DECIDED,
}
JUDGED = (EntryVerdict.KINK, EntryVerdict.END)
# No derivative, or none that is known, and the test for a rule's answer to be of use nevertheless.
NONE = {EntryVerdict.JUMP: lambda got: not np.isnan(got), EntryVerdict.UNDECIDED: np.isfinite}
SAME = 1e-9  # relative error of float64 autodiff that is put down to rounding
CONFIRMED = 4  # entries of each leaf where the rule differs most, and as many at random


class Points:
    """The gradient at one set of arguments, and its entries that are not smooth.

    `truth` has a number for every smooth entry and NaN elsewhere; `skip` masks the others, leaf by leaf (None where a
    leaf has none). `open` lists those that the budget left. `known` masks the smooth ones that truth was right about
    before they were decided one by one.
    """

    def __init__(
        self,
        truth: Leaves,
        oracle: ExactOracle,
        cts: Leaves,
        sides: Sequence[dict[tuple[int, ...], Sides]] = (),
        doubtful: Sequence[Place] = (),
        alone: bool = False,
    ) -> None:
        """Decide what `truth` leaves open: its entries that are NaN, those in `doubtful`, and the kinks in `sides`.

        Exact arithmetic decides as far as its budget goes. The kinks beyond it are those seen in float64, with the
        derivative on both sides; other entries keep their value. `alone` leaves ties open that exact arithmetic cannot
        look beside: along one entry a function may have a derivative, and none at the point.
        """
        self.truth, self.oracle = [t.copy() for t in truth], oracle
        self.entries: list[dict[tuple[int, ...], list[Entry]]] = [{} for _ in truth]
        self.vague: set[Place] = set()
        seen = [(i, at) for i, found in enumerate(sides) for at in found]
        lost = unknown(truth)
        tied = [(i, at) for i, at in lost if not np.iscomplexobj(truth[i])]
        beside = ties.gradients(oracle, cts) if len(tied) > 1 else []
        if alone and len(tied) > 1 and not beside:
            lost, doubtful = [], []
        decided = oracle.entries(cts, [*dict.fromkeys((*seen, *lost, *doubtful))])
        self.confirmed = len(decided)
        self.open = [place for place in lost if place not in decided]
        self.limit: float | None = None
        self._see(sides, decided)
        for (i, at), entries in decided.items():
            self._put(i, at, entries)
        self.totals = self._tied([place for place in tied if place in decided], beside)
        self.known = [
            ~np.isnan(new) & (errors(old, new) <= SAME * np.abs(new))
            for old, new in zip(truth, self.truth, strict=True)
        ]

    @property
    def skip(self) -> list[np.ndarray | None]:
        """The entries that are not one number."""
        return [mask if (mask := np.isnan(t)).any() else None for t in self.truth]

    def completed(self, autodiff: Leaves, sides: Sequence[dict[tuple[int, ...], Sides]]) -> "Points":
        """Take the entries that the budget left open from float64 autodiff, and kinks from both its sides."""
        decided: dict[Place, list[Entry]] = {}
        self._see(sides, decided)
        for i, at in self.open:
            if (i, at) in decided:
                self._put(i, at, decided[i, at])
            else:
                self.truth[i][at] = autodiff[i][at]
        return self

    def bounded(self, limit: float) -> "Points":
        """Leave out the entries above `limit`, at which a rule is meant to stay below it."""
        self.limit = limit
        for truth, known in zip(self.truth, self.known, strict=True):
            with np.errstate(invalid="ignore"):
                steep = np.abs(truth) > limit
            truth[steep], known[steep] = np.nan, False
        return self

    def _see(self, sides: Sequence[dict[tuple[int, ...], Sides]], decided: dict[Place, list[Entry]]) -> None:
        """Add the kinks that were seen in float64 to what is decided, unless that knows better."""
        for i, found in enumerate(sides):
            for at in found:
                if (i, at) not in decided:
                    self.vague.add((i, at))
                    decided[i, at] = kink(i, at, *found[at])

    def _put(self, i: int, at: tuple[int, ...], entries: list[Entry]) -> None:
        self.entries[i][at] = entries
        self.truth[i][at] = smooth(entries, self.truth[i])

    def _tied(self, lost: Sequence[Place], beside: Sequence[Leaves]) -> list[TieSum]:
        """Widen tied entries to the gradients beside the tie, and return what they must add up to."""
        for i, at in lost:
            below, above, verdict = slopes(self.entries[i][at])
            near = [leaves[i][at] for leaves in beside if np.isfinite(leaves[i][at])]
            if near and verdict in (EntryVerdict.SMOOTH, EntryVerdict.KINK):
                slack = ties.SAME * max(largest(leaves[i]) for leaves in beside)
                low, high = min(below.real, above.real), max(below.real, above.real)
                if min(near) < low - slack or max(near) > high + slack:
                    self._put(i, at, kink(i, at, min(low, *near), max(high, *near)))
        kinks = [(i, at) for i, at in lost if slopes(self.entries[i][at])[2] is EntryVerdict.KINK]
        return list(ties.totals(kinks, beside)) if beside else []

    def rows(
        self, i: int, name: str, got: np.ndarray, allowed: float, scale: float, autodiff: np.ndarray | None
    ) -> list[Row]:
        """Return a row for each verdict on entries of leaf `i`; `got` may be as far off as is allowed.

        Where the derivative does not exist it must not be NaN, and where it is unknown it must be finite, if `autodiff`
        of the plain forward is.
        """
        mask = self.skip[i]
        if mask is None:
            return []
        groups: dict[EntryVerdict, list[tuple[int, ...]]] = {}
        steep: list[tuple[int, ...]] = []
        for at in (tuple(map(int, at)) for at in np.argwhere(mask)):
            entries = self.entries[i].get(at)
            if self._is_steep(entries):
                steep.append(at)
            else:
                groups.setdefault(slopes(entries)[2] if entries else EntryVerdict.UNDECIDED, []).append(at)
        rows = [self._finite(name, got, steep)] if steep else []
        for verdict, places in groups.items():
            if verdict in JUDGED:
                wrong = [at for at in places if not self._holds(i, at, got[at], allowed, scale)]
            elif verdict in NONE and autodiff is not None:
                wrong = [at for at in places if np.isfinite(autodiff[at]) and not NONE[verdict](got[at])]
            else:
                wrong = []
            at = (wrong or places)[0]
            more = f", and at {len(places) - 1} more entries" if len(places) > 1 else ""
            note = self._note(i, at, outside=verdict in JUDGED and bool(wrong)) + more
            if wrong and autodiff is not None and verdict in NONE:
                note += f"; autodiff of the plain forward is finite: {number(autodiff[at].item())}"
            rows.append(Row("points", name, FAIL if wrong else WORDS[verdict], at, got[at].item(), note=note))
        slack = max(allowed, STEEP)
        unequal = (row for total in self.totals if total.leaf == i for row in _unequal(total, name, got, scale, slack))
        return [*rows, *itertools.islice(unequal, 1)]

    def _is_steep(self, entries: list[Entry] | None) -> bool:
        """True where the slope is not finite, or beyond the bound that is meant."""
        if self.limit is None:
            return False
        low, high, verdict = slopes(entries) if entries else (0j, 0j, EntryVerdict.SMOOTH)
        return verdict in (EntryVerdict.SMOOTH, EntryVerdict.NOT_FINITE) or max(abs(low), abs(high)) > self.limit

    def _finite(self, name: str, got: np.ndarray, places: Sequence[tuple[int, ...]]) -> Row:
        """Return the row for entries at which a finite number is meant."""
        assert self.limit is not None
        wrong = [at for at in places if not np.abs(got[at]) <= self.limit]
        at = (wrong or places)[0]
        note = f"not within the bound of {number(self.limit)} that is meant" if wrong else "finite, as is meant"
        return Row("points", name, FAIL if wrong else OK, at, got[at].item(), allowed=self.limit, note=note)

    def _holds(self, i: int, at: tuple[int, ...], got: complex, allowed: float, scale: float) -> bool:
        low, high, _ = slopes(self.entries[i][at])
        if not np.iscomplexobj(self.truth[i]):
            low, high = low.real, high.real
        nearest = clipped(np.asarray(got), np.asarray(low), np.asarray(high))
        slack = (max(allowed, STEEP) if (i, at) in self.vague else allowed) * scale
        with np.errstate(invalid="ignore"):
            return bool(got == nearest or np.abs(got - nearest) <= slack)

    def _note(self, i: int, at: tuple[int, ...], outside: bool) -> str:
        if at not in self.entries[i]:
            return self.oracle.why or "autodiff is not finite here"
        entries = self.entries[i][at]
        text = "; ".join(filter(None, (str(entry).partition(": ")[2] for entry in entries)))
        return f"{entries[0].verdict.value}: not within the {text}" if outside else text


def _unequal(total: TieSum, name: str, got: np.ndarray, scale: float, allowed: float) -> list[Row]:
    """Return a row where the entries of a tie do not add up to what they must."""
    found = float(sum(got[at] for at in total.places))
    if not np.isfinite(found) or abs(found - total.value) <= allowed * max(scale, abs(total.value)):
        return []
    note = f"the {len(total.places)} entries of a tie add up to {number(found)}, not to {number(total.value)}"
    return [Row("points", name, FAIL, total.places[0], got[total.places[0]].item(), note=note)]


def suspects(truth: Leaves, got: Leaves, rng: np.random.Generator) -> list[Place]:
    """Return entries to be confirmed: where rule and truth differ most, and some at random."""
    places: list[Place] = []
    for i, (t, g) in enumerate(zip(truth, got, strict=True)):
        if t.size:
            apart = np.argsort(-errors(g, t), axis=None)[:CONFIRMED]
            some = rng.integers(0, t.size, CONFIRMED)
            places += [(i, tuple(map(int, np.unravel_index(k, t.shape)))) for k in (*apart, *some)]
    return [*dict.fromkeys(places)]
