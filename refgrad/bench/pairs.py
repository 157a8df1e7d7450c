"""A baseline and one contender, alive at the same time, taking turns.

A machine drifts by a tenth within minutes, so that two times are comparable only if they were taken side by side: every
ratio is of two medians from the same pair, whose turns alternate in order. The first call of each turn is discarded,
since it finds the caches of the other; a turn of short calls is the median of many. Before the first turn each side
makes a few calls, until its memory no longer grows.
"""

import contextlib
import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from refgrad.bench.contenders import BASELINE
from refgrad.bench.process import Process

SETTLING = 3  # calls until the heap has grown to what a step takes; the very first compiles, where torch does
TURN_SECONDS, TURN_CALLS = 0.3, 30  # a turn lasts so long, in so many calls at most
LOSS_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}  # relative: the first loss of a pair is one number, rounded twice


@dataclasses.dataclass(frozen=True)
class PairSide:
    """One process's part of a pair: seconds of a call in each turn, and what its build and its memory came to."""

    first: float
    """Seconds of the very first call, in which torch compiles."""
    seconds: tuple[float, ...]
    faults: int
    """Page faults of the last call."""
    loss: Any
    """The loss of the first call, before any update; None for the roofline."""
    built: Mapping[str, Any]
    peak: int

    @property
    def median(self) -> float:
        """Seconds of a call."""
        return statistics.median(self.seconds)

    @property
    def compile(self) -> float:
        """Seconds to compile: as timed apart, or what the first call took beyond the later ones."""
        apart = self.built["compile_s"]
        return max(0.0, self.first - self.median) if apart is None else apart


@dataclasses.dataclass(frozen=True)
class ContenderPair:
    """A contender beside the baseline."""

    name: str
    contender: PairSide
    baseline: PairSide

    @property
    def ratio(self) -> float:
        """Median seconds of the contender over the baseline's."""
        return self.contender.median / self.baseline.median

    @property
    def spread(self) -> tuple[float, float]:
        """The least and the largest ratio of two neighbouring turns."""
        ratios = [one / other for one, other in zip(self.contender.seconds, self.baseline.seconds, strict=True)]
        return min(ratios), max(ratios)


def run_pair(
    name: str, work: Mapping[str, Any], rounds: int, dtype: str, report: Callable[[str], None]
) -> ContenderPair:
    """Measure one contender against the baseline on the same work, in `rounds` turns of each.

    Raises ChildProcessError where a process fails, ValueError where the two do not compute the same loss.
    """
    names = (BASELINE, name)
    with contextlib.ExitStack() as stack:
        sides = [stack.enter_context(Process(which)) for which in names]
        built = []
        for which, side in zip(names, sides, strict=True):
            report(f"{name}: building {which}")
            built.append(side.ask({"build": {"contender": which, **work}}))
        first = [side.ask({"steps": SETTLING}) for side in sides]
        calls = 1 + min(TURN_CALLS, math.ceil(TURN_SECONDS / min(answer["seconds"][-1] for answer in first)))
        taken: tuple[list[dict[str, Any]], ...] = ([], [])
        for turn in range(rounds):
            report(f"{name}: round {turn + 1} of {rounds}")
            for at in (0, 1) if turn % 2 == 0 else (1, 0):
                taken[at].append(sides[at].ask({"steps": calls}))
        baseline, contender = map(_side, built, first, taken)
    _same(name, contender, baseline, dtype)
    return ContenderPair(name, contender, baseline)


def _side(built: Mapping[str, Any], first: Mapping[str, Any], turns: Sequence[Mapping[str, Any]]) -> PairSide:
    """One process's answers as its part of the pair."""
    return PairSide(
        first=first["seconds"][0],
        loss=first["losses"][0],
        seconds=tuple(statistics.median(turn["seconds"][1:]) for turn in turns),
        faults=turns[-1]["faults"][-1],
        built=built,
        peak=turns[-1]["peak"],
    )


def _same(name: str, contender: PairSide, baseline: PairSide, dtype: str) -> None:
    """Raise unless both saw the same first loss; the roofline has none to show."""
    got, want = contender.loss, baseline.loss
    if got is not None and not abs(got - want) <= LOSS_TOLERANCE[dtype] * abs(want):
        raise ValueError(f"{name} starts at a loss of {got}, but {BASELINE} at {want}: they do not compute the same")
