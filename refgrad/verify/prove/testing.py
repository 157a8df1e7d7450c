"""A rule tested at points: its own program and the forward's gradient, both in exact arithmetic, entry by entry."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from flint import arb, ctx
from jax.extend.core import ClosedJaxpr

from refgrad.verify.exact.arrays import Array, NotDecided, pull_back
from refgrad.verify.exact.evaluate import Evaluator, lift
from refgrad.verify.exact.scalars.germ import Undecided

PRECISION = (128, 1024)  # bits, doubled until the balls decide
ROUNDED = 2.0**-44  # the relative difference that constants, folded in float64, can leave behind a few layers


@dataclasses.dataclass(frozen=True)
class Gap:
    """The largest difference of rule and truth at a point, relative to the largest true entry of its leaf."""

    relative: float
    leaf: int
    index: tuple[int, ...]
    got: arb
    truth: arb


def largest_gap(
    forward: ClosedJaxpr, backward: ClosedJaxpr, diff: Sequence[np.ndarray], rest: Sequence, cts: Sequence[np.ndarray]
) -> Gap:
    """Return the largest gap of all outputs and cotangents, certain to half of itself or to 2⁻⁶⁴.

    Raises NotDecided at ties, or where no precision within the limit decides.
    """
    bits, most = PRECISION
    while True:
        with ctx.workprec(bits):
            gap, width = _gap(forward, backward, diff, rest, cts)
        if width <= max(gap.relative / 2, 2.0**-64):
            return gap
        if bits >= most:
            raise NotDecided(f"the balls are too wide, up to {most} bits")
        bits *= 2


def _gap(forward, backward, diff, rest, cts) -> tuple[Gap, float]:
    xs, gs = [lift(x).data for x in diff], [lift(c).data for c in cts]
    others = [lift(x) for x in rest]
    leaves = [Array.leaf(x) for x in xs]
    values = Evaluator().run(forward, [*leaves, *others])[: len(gs)]
    truth = [y.data for y in values] + pull_back(values, gs, leaves)
    rule = [y.data for y in Evaluator().run(backward, [*map(Array, xs), *others, *map(Array, gs)])]
    worst, width = None, 0.0
    for leaf, (t, r) in enumerate(zip(truth, rule, strict=True)):
        for x in (*t.ravel(), *r.ravel()):
            if isinstance(x, Undecided):
                raise NotDecided(x.why)
        size = max((abs(float(x.mid())) for x in t.ravel()), default=0.0) or 1.0
        for index in np.ndindex(t.shape):
            d = r[index] - t[index] if r[index] is not t[index] else arb(0)
            relative = abs(float(d.mid())) / size
            width = max(width, float(d.rad()) / size)
            if worst is None or not relative <= worst.relative:
                worst = Gap(relative, leaf, index, r[index], t[index])
    assert worst is not None
    return worst, width
