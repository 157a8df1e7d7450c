"""Kinks: where the function has a tie or a hinge, "the derivative" is a choice, and the report says so.

The truth is evaluated a small step to either side of the arguments. Where the two differ, and go on differing when
the step shrinks a hundredfold, the function has no derivative there: the entry is left out of the other comparisons
and stands in a row of its own with both one-sided derivatives. A rule may take either of them, any value between, or
what autodiff takes; anything else fails. So does an entry at which autodiff gives NaN though both sides are finite.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from refgrad.verify.numbers import to_wide
from refgrad.verify.oracle import Leaves
from refgrad.verify.report import FAIL, KINK, Row, number

STEP = 1e-6  # relative to each entry
CLOSER = 1e-4  # times that, to tell a kink from curvature
JUMP = 1e-3  # relative to the leaf's largest cotangent: below it, curvature is not told from a kink
PROBES = 16  # entries examined one by one
TRIES = 4  # directions in which a value outside the first interval may still be one-sided


class Kinks:
    """The kinks of a function at `diff`: `skip` masks their entries, leaf by leaf (None where a leaf has none).

    `cotangents(diff)` is the truth at other arguments (None where kinks cannot be looked for), `truth` that at these,
    `got` what the rule gives.
    """

    def __init__(
        self,
        diff: Sequence,
        cotangents: Callable[[Leaves], Leaves] | None,
        truth: Leaves,
        got: Leaves,
        rng: np.random.Generator,
    ) -> None:
        self.diff, self.cotangents, self.truth, self.got, self.rng = diff, cotangents, truth, got, rng

    @functools.cached_property
    def skip(self) -> list[np.ndarray | None]:
        """Per leaf, which entries stand at a kink."""
        if self.cotangents is None:
            return [None] * len(self.diff)
        steps = [self._steps(x) for x in self.diff]
        jumps, self.sides = self._jumps(steps)
        for i, jump in enumerate(jumps):
            self._probe(i, jump, steps)
            jump |= ~np.isfinite(self.truth[i]) & np.isfinite(self.sides[0][i] + self.sides[1][i])
        return [j if j.any() else None for j in jumps]

    def _jumps(self, steps: Leaves) -> tuple[Leaves, tuple[Leaves, Leaves]]:
        """Where the truth jumps from one side of the arguments to the other, and the truth on both sides.

        Curvature makes a difference too, but one that shrinks with the step.
        """
        sides = self._sides(steps, STEP)
        jumps = [_jump(*pair) for pair in zip(*sides, strict=True)]
        if any(j.any() for j in jumps):
            closer = self._sides(steps, STEP * CLOSER)
            for jump, first, second in zip(jumps, zip(*sides, strict=True), zip(*closer, strict=True), strict=True):
                jump &= _jump(*second) & (_gap(*second) > _gap(*first) / 2)
            sides = closer
        return jumps, sides

    def _probe(self, i: int, jump: np.ndarray, steps: Leaves) -> None:
        """Adds to `jump` the entries where the rule departs from truth and a step in that entry alone shows a kink.

        A tie of three has entries that no common direction singles out.
        """
        got, truth = self.got[i], self.truth[i]
        gap = np.where(jump | _close(got, truth, JUMP * _scale(truth)), 0.0, _gap(truth, got))
        for flat in np.argsort(-gap, axis=None)[:PROBES]:
            at = np.unravel_index(flat, gap.shape)
            if not gap[at] > 0:
                return
            alone = [np.zeros_like(v) for v in steps]
            alone[i][at] = steps[i][at]
            jumps, sides = self._jumps(alone)
            if not jumps[i][at]:
                return
            jump[at] = True
            for side, found in zip(self.sides, sides, strict=True):
                side[i][at] = found[i][at]

    def row(self, i: int, name: str, got: np.ndarray, truth: np.ndarray, allowed: float) -> Row | None:
        """The kink row of leaf `i`, or None where it has none: the rule's value and both one-sided derivatives.

        `got` is rounded in its own dtype, and may be off by as much as is `allowed` anywhere else.
        """
        mask = self.skip[i]
        if mask is None:
            return None
        below, above = self.sides[0][i], self.sides[1][i]
        low, high = np.fmin(below, above), np.fmax(below, above)
        slack = max(JUMP, allowed) * _scale(below, above)
        wrong = mask & ~_within(got, low, high, slack) & ~_close(got, truth, slack)
        for _ in range(TRIES if wrong.any() else 0):
            for side in self._sides([self._steps(x) for x in self.diff], STEP * CLOSER):
                low, high = np.fmin(low, side[i]), np.fmax(high, side[i])
            wrong &= ~_within(got, low, high, slack)
        at = tuple(map(int, np.argwhere(wrong if wrong.any() else mask)[0]))
        count = int(mask.sum())
        singular = "" if np.isfinite(truth[at]) else "autodiff is not finite here; "
        sides = f"{singular}one-sided derivatives {number(below[at].item())} and {number(above[at].item())}"
        others = f", and at {count - 1} more entries" if count > 1 else ""
        outside = "outside the " if wrong.any() else ""
        return Row(
            "kinks",
            name,
            FAIL if wrong.any() else KINK,
            at,
            got[at].item(),
            truth[at].item(),
            note=f"{outside}{sides}{others}",
        )

    def _steps(self, x) -> np.ndarray:
        """Positive steps in proportion to each entry (to the leaf's size where the entry is 0), no two alike."""
        x = np.abs(to_wide(x))
        finite = x[np.isfinite(x)]
        size = np.sqrt(np.mean(finite**2)) if finite.size else 1.0
        sizes = np.where(np.isfinite(x), np.where(x > 0, x, size or 1.0), 0.0)
        return sizes * self.rng.uniform(0.5, 1.5, x.shape)

    def _sides(self, steps: Leaves, step: float) -> tuple[Leaves, Leaves]:
        """The truth one step below the arguments and one above."""
        assert self.cotangents is not None
        moved = ([to_wide(x) + s * step * v for x, v in zip(self.diff, steps, strict=True)] for s in (-1, 1))
        below, above = map(self.cotangents, moved)
        return below, above


def _scale(*leaves: np.ndarray) -> float:
    return max((float(np.max(np.abs(x), where=np.isfinite(x), initial=0.0)) for x in leaves), default=0.0)


def _gap(below: np.ndarray, above: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.abs(above - below)


def _jump(below: np.ndarray, above: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.asarray(_gap(below, above) > JUMP * _scale(below, above))


def _within(got: np.ndarray, low: np.ndarray, high: np.ndarray, slack: float) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return (got >= low - slack) & (got <= high + slack)


def _close(got: np.ndarray, truth: np.ndarray, slack: float) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.abs(got - truth) <= slack
