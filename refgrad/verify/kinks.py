"""Kinks found in float64, where exact arithmetic cannot look for them.

The truth is evaluated a small step to either side of the arguments. Where the two differ, and go on differing when
the step shrinks, the function has no derivative there. An entry at which autodiff differs from both sides, or is NaN
between finite ones, is listed too: its derivative is the one that both sides have.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from refgrad.verify.numbers import largest, to_wide
from refgrad.verify.oracle import Leaves

STEP = 1e-6  # relative to each entry
CLOSER = 1e-4  # times that, to tell a kink from curvature
JUMP = 1e-3  # relative to the leaf's largest cotangent: below it, curvature is not told from a kink
PROBES = 16  # entries examined one by one

Sides = tuple[Any, Any]


def kinks(
    diff: Sequence, cotangents: Callable[[Leaves], Leaves], truth: Leaves, got: Leaves, rng: np.random.Generator
) -> list[dict[tuple[int, ...], Sides]]:
    """Return the entries of each leaf that stand at a kink, with the derivative below and above.

    `cotangents(diff)` is the truth at other arguments, `truth` that at these, `got` what the rule gives.
    """
    steps = [_steps(x, rng) for x in diff]
    jumps, sides = _jumps(diff, cotangents, steps)
    found: list[dict[tuple[int, ...], Sides]] = []
    for i, jump in enumerate(jumps):
        below, above = sides[0][i], sides[1][i]
        jump |= ~np.isfinite(truth[i]) & np.isfinite(below + above)
        jump |= _gap(truth[i], (below + above) / 2) > JUMP * largest(truth[i])  # a tie that both sides know nothing of
        here = {tuple(map(int, at)): (below[tuple(at)], above[tuple(at)]) for at in np.argwhere(jump)}
        gap = np.where(_gap(got[i], truth[i]) > JUMP * largest(truth[i]), _gap(got[i], truth[i]), 0.0)
        doubtful = [np.unravel_index(k, gap.shape) for k in np.argsort(-gap, axis=None) if gap.flat[k] > 0]
        for at in [*here, *doubtful][:PROBES]:  # along this entry alone: a tie of three has others
            at = tuple(map(int, at))
            alone = [np.zeros_like(v) for v in steps]
            alone[i][at] = steps[i][at]
            mask, pair = _jumps(diff, cotangents, alone)
            if mask[i][at] or at in here:
                here[at] = pair[0][i][at], pair[1][i][at]
        found.append(here)
    return found


def _jumps(
    diff: Sequence, cotangents: Callable[[Leaves], Leaves], steps: Leaves
) -> tuple[Leaves, tuple[Leaves, Leaves]]:
    """Return where the truth jumps from one side of the arguments to the other, and the truth on both sides.

    Curvature makes a difference too, but one that shrinks with the step.
    """
    sides = _sides(diff, cotangents, steps, STEP)
    jumps = [_jump(*pair) for pair in zip(*sides, strict=True)]
    if any(j.any() for j in jumps):
        closer = _sides(diff, cotangents, steps, STEP * CLOSER)
        for jump, first, second in zip(jumps, zip(*sides, strict=True), zip(*closer, strict=True), strict=True):
            jump &= _jump(*second) & (_gap(*second) > _gap(*first) / 2)
        sides = closer
    return jumps, sides


def _steps(x, rng: np.random.Generator) -> np.ndarray:
    """Positive steps in proportion to each entry (to the leaf's size where the entry is 0), no two alike."""
    x = np.abs(to_wide(x))
    finite = x[np.isfinite(x)]
    size = np.sqrt(np.mean(finite**2)) if finite.size else 1.0
    sizes = np.where(np.isfinite(x), np.where(x > 0, x, size or 1.0), 0.0)
    return sizes * rng.uniform(0.5, 1.5, x.shape)


def _sides(diff: Sequence, cotangents: Callable[[Leaves], Leaves], steps: Leaves, step: float) -> tuple[Leaves, Leaves]:
    """The truth one step below the arguments and one above."""
    moved = ([to_wide(x) + s * step * v for x, v in zip(diff, steps, strict=True)] for s in (-1, 1))
    below, above = map(cotangents, moved)
    return below, above


def _gap(below: np.ndarray, above: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.abs(above - below)


def _jump(below: np.ndarray, above: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.asarray(_gap(below, above) > JUMP * max(largest(below), largest(above)))
