"""A rule and autodiff of the same function, compiled alike, and how far each is from truth."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refgrad.verify.exact import EntryVerdict, Truth, exact
from refgrad.verify.numbers import largest, to_wide
from refgrad.verify.oracle import Float64Program, first_line
from refgrad.verify.rules import without_rules
from refgrad.verify.subject import Subject, pullback
from refgrad.verify.worst.candidates import Point

TIES = 64  # undecided entries of a point that are decided one by one; the others do not count
NEIGHBOURS = 8  # of a point, every entry an ulp away: what they move is conditioning, of which no rule is guilty
LEAST = 2.0**-26  # relative step of float64 arguments to their neighbours: autodiff in float64 must resolve it
Errors = list[list[np.ndarray]]  # of the rule, then of autodiff: one array a leaf, in ulps


@dataclasses.dataclass(frozen=True)
class Measured:
    """A point with the cotangents by the rule and by autodiff, their truth and their errors in ulps."""

    point: Point
    got: list[list[np.ndarray]]
    truth: list[np.ndarray]
    errors: Errors


class Contest:
    """The programs that give a point's cotangents, each compiled once, and their truth."""

    def __init__(self, subject: Subject, point: Point, rng: np.random.Generator) -> None:
        self.subject = subject
        plain = without_rules(subject.flat(), jvp=True)
        self.programs = [jax.jit(pullback(flat)) for flat in (subject.flat(), plain)]
        try:
            jax.eval_shape(self.programs[1], subject.diff, subject.rest, point.cts)
        except Exception as refused:
            message = f"{subject.title} has no reverse mode without its rules, so that there is nothing to compare with"
            raise TypeError(f"{message}: {first_line(refused)}") from None
        self.narrow = any(to_wide(x).dtype != x.dtype for x in subject.diff)
        self.signs = [[rng.choice([-1.0, 1.0], (NEIGHBOURS, *x.shape)) for x in leaves] for leaves in point]
        pull = pullback(plain)
        self.wide = Float64Program(
            lambda diff, rest, cts: jax.lax.map(lambda at: pull(at[0], rest, at[1]), (diff, cts)),
            self._near(point)[0], subject.rest, self._near(point)[1],
        )  # fmt: skip
        self.exact = exact(subject.f, *subject.args)
        self.eps = max(float(jnp.finfo(x.dtype).eps) for x in (*point.diff, *point.cts))

    def estimate(self, point: Point) -> np.ndarray | None:
        """Return about how many ulps the rule and autodiff err in each leaf, or None outside the domain of the search.

        Autodiff in float64 stands in for truth. Where the arguments are in float64 themselves, the rule and autodiff
        stand in for each other.
        """
        outputs, got = self._run(point)
        values, truth, spread = self._wide(point)
        if not self._holds(outputs[1], values):
            return None
        truth = truth if self.narrow else got[1]
        ulps = _ulps(point, values, truth, spread)
        found = np.zeros((2, len(truth)))
        for k, cotangents in enumerate(got):
            for i, (g, t, u) in enumerate(zip(cotangents, truth, ulps, strict=True)):
                with np.errstate(all="ignore"):
                    gap = np.where(np.isfinite(g), np.where(np.isfinite(t), np.abs(g - t), 0.0), np.inf) / u
                found[k, i] = np.max(gap, initial=0.0, where=~_overflows(t, point.diff[i].dtype))
        return found

    def holds(self, point: Point) -> bool:
        """Return True where the forward keeps half of its digits by exact truth: float64 may lose them as well."""
        return self._holds(self._run(point)[0][1], [y.mid for y in self.exact.at(point.diff).value])

    def measure(self, point: Point) -> Measured:
        """Return the errors against exact truth at a point that holds."""
        _, got = self._run(point)
        truth = self.exact.at(point.diff)
        balls = truth.gradient(point.cts)
        mids = [b.mid for b in balls]
        slopes = self._slopes(truth, point, balls)
        for (i, index), (low, _) in slopes.items():
            mids[i][index] = low
        ulps = _ulps(point, [y.mid for y in truth.value], mids, self._wide(point)[2])
        errors: Errors = []
        for cotangents in got:
            gaps = [b.error(g) for b, g in zip(balls, cotangents, strict=True)]
            for i, b in enumerate(balls):
                counts = b.decided & np.isfinite(mids[i]) & ~_overflows(mids[i], point.diff[i].dtype)
                gaps[i] = np.where(counts, gaps[i], 0.0)
            for (i, index), (low, high) in slopes.items():
                value = cotangents[i][index]
                gaps[i][index] = max(low - value, value - high, 0.0) if np.isfinite(value) else np.inf
            errors.append([gap / u for gap, u in zip(gaps, ulps, strict=True)])
        return Measured(point, got, mids, errors)

    def _near(self, point: Point) -> tuple[Any, Any]:
        """Return the leaves and the cotangents in float64, stacked: as they are, then moved by an ulp either way."""
        diff, cts = (
            [_moved(*pair) for pair in zip(*both, strict=True)] for both in zip(point, self.signs, strict=True)
        )
        return diff, cts

    def _wide(self, point: Point) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
        """Return outputs and cotangents by autodiff in float64, and how far an ulp of all leaves moves the latter."""
        diff, cts = self._near(point)
        values, near = self.wide(diff, self.subject.rest, cts)
        spread = []
        for x, c in zip(point.diff, near, strict=True):
            eps = float(jnp.finfo(x.dtype).eps)
            with np.errstate(all="ignore"):
                moved = np.max(np.abs(c[1:] - c[0]), axis=0) / max(eps, LEAST)
            spread.append(np.where(np.isfinite(moved), moved, 0.0))
        return [y[0] for y in values], [c[0] for c in near], spread

    def _run(self, point: Point) -> tuple[list[list[np.ndarray]], list[list[np.ndarray]]]:
        found = [program(point.diff, self.subject.rest, point.cts) for program in self.programs]
        return [[to_wide(y) for y in out] for out, _ in found], [[to_wide(c) for c in cts] for _, cts in found]

    def _holds(self, got: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> bool:
        """Return True where the forward is finite and keeps half of its digits: no rule is better than its forward."""
        if not all(np.isfinite(x).all() for x in (*got, *truth)):
            return False
        return all(largest(y - t) <= self.eps**0.5 * largest(t) for y, t in zip(got, truth, strict=True))

    def _slopes(self, truth: Truth, point: Point, balls: Sequence[Any]) -> dict[tuple, tuple[float, float]]:
        """Return the least and greatest slope of the entries at a tie, as far as both are finite."""
        where = [
            (i, tuple(map(int, at)))
            for i, b in enumerate(balls)
            if not jnp.issubdtype(point.diff[i].dtype, jnp.complexfloating)
            for at in np.argwhere(~b.decided)
        ]
        found = {}
        for entry in truth.entries(point.cts, where[:TIES]):
            sides = [float(x.mid()) for x in (entry.below, entry.above) if x is not None]
            if (
                entry.verdict in (EntryVerdict.SMOOTH, EntryVerdict.KINK, EntryVerdict.END)
                and sides
                and np.isfinite(sides).all()
            ):
                found[entry.leaf, entry.index] = (min(sides), max(sides))
        return found


def _moved(x: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """Return a leaf in float64, as it is and moved by an ulp of either sign, a 0 to the least normal number."""
    wide, info = to_wide(x), jnp.finfo(x.dtype)
    moved = wide * (1 + max(float(info.eps), LEAST) * signs)
    return np.concatenate([wide[None], np.where(wide == 0, float(info.smallest_normal) * signs, moved)])


def _overflows(truth: np.ndarray, dtype: Any) -> np.ndarray:
    """Return True where a truth is beyond the dtype's range, or in its last binade, where a rounding may overflow."""
    return np.isfinite(truth) & (np.abs(truth) > float(jnp.finfo(dtype).max) / 2)


def _ulps(
    point: Point, values: Sequence[np.ndarray], truth: Sequence[np.ndarray], spread: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Return the unit of every entry: an ulp of the leaf's dtype at max(|truth|, scale).

    The scale of entry x_i is the function's own, the larger of two. One is the largest |cotangent · output| by
    max(1, |x_i|): an error below its ulp, times x_i, is below the rounding of the function. The other is `spread`: how
    far truth moves where every leaf and cotangent moves by a relative step, by that step. An error of its ulp is as if
    the arguments had been rounded once more. A unit is at least the smallest normal number, because XLA on CPU flushes
    what is smaller to 0.
    """
    size = max((largest(c * v) for c, v in zip(map(to_wide, point.cts), values, strict=True)), default=0.0)
    made = []
    for x, t, moved in zip(point.diff, truth, spread, strict=True):
        info = jnp.finfo(x.dtype)
        own = size / np.maximum(1.0, np.abs(to_wide(x)))
        scale = np.maximum(np.abs(np.where(np.isfinite(t), t, 0.0)), np.maximum(own, moved))
        exponents = np.frexp(scale)[1] - 1
        made.append(np.maximum(np.ldexp(float(info.eps), exponents), float(info.smallest_normal)))
    return made
