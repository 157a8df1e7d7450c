"""Ties among several entries: the gradients beside them.

The median of equal entries does not move with one of them alone, and moves with all: it has a derivative along each
entry, and none at the point. A small step in a direction that breaks the tie leads to a gradient, and a rule may return
any that is so reached, or a mean of them. Where all of them add up to the same over a group of entries, the rule must.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from refgrad.verify.exact_oracle import ExactOracle, Place
from refgrad.verify.numbers import generator, largest, to_wide
from refgrad.verify.oracle import Leaves

STEP = 2.0**-30  # relative to each entry, or to the leaf's largest where it is 0
SAME = 1e-5  # relative difference up to which gradients beside a tie are one: what a step changes
RANDOM = 2  # pairs of random directions, beside one in the order of the entries and one of alternating signs


class TieSum(NamedTuple):
    """The sum of the cotangents of some tied entries of a leaf."""

    leaf: int
    places: list[tuple[int, ...]]
    value: float


def gradients(oracle: ExactOracle, cts: Leaves) -> list[Leaves]:
    """Return the gradients a small step away from the arguments, each direction and its opposite; none if too dear."""
    if not oracle.whole or not oracle.affords(2 * (RANDOM + 2)):
        return []
    leaves = [to_wide(x) for x in oracle.diff]
    moved = (
        [_moved(x, sign * v) for x, v in zip(leaves, direction, strict=True)]
        for direction in _directions([x.size for x in leaves])
        for sign in (1, -1)
    )
    return [found for diff in moved if (found := oracle.gradient(diff, cts)) is not None]


def totals(places: Sequence[Place], beside: Sequence[Leaves]) -> Iterator[TieSum]:
    """Yield the sums of the entries of each leaf, and of each row along its last axis, if that is one number."""
    groups: dict[tuple, list[tuple[int, ...]]] = {}
    for i, at in places:
        for key in {(i,), (i, at[:-1])}:
            groups.setdefault(key, []).append(at)
    for i, group in dict.fromkeys((i, tuple(group)) for (i, *_), group in groups.items()):
        sums = [sum(leaves[i][at] for at in group) for leaves in beside]
        size = max((largest(leaves[i]) for leaves in beside), default=0.0)
        if len(group) > 1 and np.isfinite(sums).all() and max(sums) - min(sums) <= SAME * size:
            yield TieSum(i, list(group), float(np.mean(sums)))


def _directions(sizes: Sequence[int]) -> Iterator[Leaves]:
    """Yield directions in which no two entries move alike: rules break ties by the order of the entries."""
    count, rng = sum(sizes), generator(sum(sizes), 6)
    order = np.arange(1, count + 1) / count
    flat = [order, order * np.where(np.arange(count) % 2, 1, -1)]
    for v in (*flat, *rng.uniform(-1, 1, (RANDOM, count))):
        yield np.split(v, np.cumsum(sizes)[:-1])


def _moved(x: np.ndarray, v: np.ndarray) -> np.ndarray:
    if np.iscomplexobj(x):
        return x
    size = np.where(np.isfinite(x), np.where(x == 0, largest(x) or 1.0, np.abs(x)), 0.0)
    return x + STEP * size * v.reshape(x.shape)
