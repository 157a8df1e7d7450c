"""The arguments at which a rule errs most against exact truth, and how much autodiff errs.

>>> found = worst(my_op, x, w)      # prints as a table, `.ok`, `.arguments`, `.json()`
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from refgrad._text import clipped, table
from refgrad.jaxpr.programs import equations
from refgrad.jaxpr.rules import rule_of
from refgrad.verify.case import PRECISION
from refgrad.verify.numbers import generator
from refgrad.verify.properties.accuracy import NO_WORSE
from refgrad.verify.subject import Subject
from refgrad.verify.worst.candidates import Point, PointSource
from refgrad.verify.worst.contest import Contest, Measured

ELITE = 4  # points kept for each leaf and contestant
SHARE = 32  # evaluations for each point that is measured against exact truth
FEWEST = 12  # points measured against exact truth, at least


class Extreme(NamedTuple):
    """The entry of a leaf that errs most, in ulps, and the number of its point."""

    ulps: float
    index: tuple[int, ...]
    got: complex
    truth: complex
    point: int


@dataclasses.dataclass(frozen=True)
class WorstRow:
    """One argument: where the rule errs most, where autodiff does, over the same points.

    Attributes:
      argument: its name.
      rule: the entry at which the rule errs most.
      autodiff: the entry at which autodiff errs most.
      compared: both errors over the points at which autodiff is not infinitely wrong.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from refgrad.verify import worst
      >>> square = jax.custom_vjp(lambda x: x * x)
      >>> square.defvjp(lambda x: (x * x, x), lambda x, dy: (2 * x * dy,))
      >>> (row,) = worst(square, jnp.ones(2), budget=20).rows
      >>> row.argument, row.rule.ulps <= 1
      ('x', True)
    """

    argument: str
    rule: Extreme
    autodiff: Extreme
    compared: tuple[float, float]

    @property
    def ok(self) -> bool:
        """True where the rule's worst is within 1.25 times autodiff's and an ulp."""
        rule, autodiff = self.compared
        return rule <= NO_WORSE * autodiff + 1

    def cells(self) -> tuple[str, ...]:
        """The row as text, a cell for each of `HEADER`."""
        rule = self.rule
        index = "[" + ", ".join(map(str, rule.index)) + "]"
        numbers = (f"{rule.ulps:.3g}", f"{self.autodiff.ulps:.3g}")
        digits = 3 if np.iscomplexobj(rule.got) else 7
        values = (f"{x:.{digits}g}" for x in (rule.got, rule.truth))
        return (clipped(self.argument, 24), *numbers, index, *values, "ok" if self.ok else "worse")

    def note(self) -> str:
        """Return the line that says what is compared where autodiff is infinitely wrong; nothing elsewhere."""
        if math.isfinite(self.autodiff.ulps):
            return ""
        rule, autodiff = self.compared
        return f"{clipped(self.argument, 24)}: {rule:.3g} by the rule, {autodiff:.3g} where autodiff is finite"


HEADER = ("argument", "rule", "autodiff", "entry", "got", "truth", "verdict")


@dataclasses.dataclass(frozen=True)
class Worst:
    """The outcome of `worst`. Prints as a table; `ok` is False as soon as the rule is worse than autodiff in one row.

    Attributes:
      subject: the function, with its types and its place in the source.
      rows: a row for each argument.
      arguments: those of `f` at which the rule errs most, bit for bit.
      cotangents: those of its float outputs.
      seed: the seed of the search, which replays it.
      budget: the number of points tried.
      measured: the number of points measured against exact truth.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from refgrad.verify import worst
      >>> square = jax.custom_vjp(lambda x: x * x)
      >>> square.defvjp(lambda x: (x * x, x), lambda x, dy: (2 * x * dy,))
      >>> found = worst(square, jnp.ones(2), budget=20)
      >>> found.digest == worst(square, jnp.ones(2), budget=20, seed=found.seed).digest
      True
    """

    subject: str
    rows: tuple[WorstRow, ...]
    arguments: tuple
    cotangents: tuple[np.ndarray, ...]
    seed: int
    budget: int
    measured: int

    @property
    def ok(self) -> bool:
        """True where the rule's worst is within 1.25 times autodiff's and an ulp, in every argument."""
        return all(row.ok for row in self.rows)

    @property
    def digest(self) -> str:
        """The first bytes of SHA-256 over the arguments and cotangents: a replay that finds the same has the same."""
        arrays = (np.asarray(x) for x in jax.tree.leaves((self.arguments, self.cotangents)) if _has_bytes(x))
        return hashlib.sha256(b"".join(x.tobytes() for x in arrays)).hexdigest()[:16]

    def __str__(self) -> str:
        outcome = "no worse than autodiff" if self.ok else "WORSE than autodiff"
        lines = [f"{clipped(self.subject, 76)}: {outcome}"]
        lines.append("errors in ulps of max(|truth|, scale), scale the function's own; exact truth")
        lines.append(table(HEADER, [row.cells() for row in self.rows]))
        lines += filter(None, (row.note() for row in self.rows))
        lines.append(f"{self.budget:,} points tried, {self.measured} of them measured against exact truth")
        lines.append(f"replay: worst(f, *args, seed={self.seed}, budget={self.budget}).arguments, {self.digest}")
        return "\n".join(lines)

    def data(self) -> dict[str, Any]:
        """The outcome as plain dicts, lists, strings and numbers (complex and non-finite ones as strings)."""
        rows = [
            {
                "argument": row.argument,
                "ok": row.ok,
                "compared": [_plain(x) for x in row.compared],
                **{name: _plain_extreme(getattr(row, name)) for name in ("rule", "autodiff")},
            }
            for row in self.rows
        ]
        facts = {name: getattr(self, name) for name in ("subject", "ok", "seed", "budget", "measured")}
        return {**facts, "digest": self.digest, "rows": rows}

    def json(self) -> str:
        """`data()` as JSON text."""
        return json.dumps(self.data(), ensure_ascii=False, indent=1)


def worst(f: Callable, *args: Any, seed: int = 0, budget: int = 2000) -> Worst:
    """Search for the arguments at which the rules inside `f` err most against exact truth.

    Two searches share `budget` points: one climbs by the rule's error, one by that of autodiff of `f` without its
    rules, compiled alike, in every differentiated argument by itself. Points start around `args`: other exponents (up
    to 2⁸), ties, neighbouring floats, cancellation, special values, and random cotangents. A point counts where the
    forward is finite and holds half of its digits, since no rule is better than its forward. Autodiff in float64 stands
    in for truth while the search climbs; the points that promise most are measured against exact truth, for the rule
    and for autodiff alike.

    An error is |got − truth| / ulp(max(|truth|, scale)), in ulps of the argument's dtype. The scale of entry x_i is the
    largest |cotangent · output| by max(1, |x_i|), so that noise below the function's rounding does not count, or what
    an ulp of the arguments moves the truth, in ulps, if that is more, so that conditioning does not. At a kink every
    value between the slopes is right. The same seed and budget find the same bytes on the same machine and version of
    JAX.

    The rule is worse where its worst exceeds 1.25 times autodiff's and an ulp, over the points at which autodiff is not
    infinitely wrong (not finite where truth is).

    Args:
      f: a function with rules inside.
      *args: arguments to start from.
      seed: seed of the points.
      budget: the number of points to try.

    Returns:
      A `Worst`: it prints as a table, and has `.ok`, `.rows` and the `.arguments` at which the rule errs most.

    Raises:
      ValueError: where the budget is below 1, `f` holds no rule or no point has a truth, and where an argument is NaN.
      TypeError: where nothing can be differentiated or autodiff has no reverse mode.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from refgrad.verify import worst
      >>> square = jax.custom_vjp(lambda x: x * x)
      >>> square.defvjp(lambda x: (x * x, x), lambda x, dy: (2 * x * dy,))
      >>> worst(square, jnp.ones(2), budget=20).ok
      True
    """
    if budget < 1:
        raise ValueError(f"budget is {budget}, but at least 1 point must be tried")
    subject = Subject.of(f, args)
    flat = subject.flat()
    rules = map(rule_of, equations(jax.make_jaxpr(flat)(subject.diff, subject.rest)))
    if all(rule is None or rule.of_jax for rule in rules):
        raise ValueError(f"{subject.title} holds no rule: there is nothing to search")
    with jax.default_matmul_precision(PRECISION):
        source = PointSource(generator(seed, 5), subject.diff, jax.eval_shape(flat, subject.diff, subject.rest)[0])
        first = source.first()
        contest = Contest(subject, first, generator(seed, 6))
        elites = _climb(contest, source, first, budget)
        measured = [contest.measure(point) for point in elites.best(max(FEWEST, budget // SHARE))]
    if not measured:
        raise ValueError(f"{subject.title}: the forward holds at none of {budget} points, so that no rule can")
    rows = tuple(_row(name, i, measured) for i, name in enumerate(subject.arguments))
    top = max(rows, key=lambda row: row.rule.ulps).rule.point
    arguments = subject.args_with(measured[top].point.diff, subject.rest)
    return Worst(subject.title, rows, arguments, tuple(measured[top].point.cts), seed, budget, len(measured))


class Elites:
    """The points of the highest estimates, for each contestant and leaf by itself."""

    def __init__(self, leaves: int) -> None:
        self.broken: list[Point] = []
        self.found: dict[tuple[int, int], list[tuple[float, Point]]] = {
            (k, i): [] for k in range(2) for i in range(leaves)
        }

    def add(self, point: Point, errors: np.ndarray, holds: Callable[[Point], bool]) -> None:
        """Keep a point that holds where it is among the best; of those infinitely wrong by autodiff, the first."""
        if not np.isfinite(errors[1]).all():
            if not self.broken and holds(point):
                self.broken = [point]
            return
        better = {key: kept for key, kept in self.found.items() if len(kept) < ELITE or errors[key] > kept[-1][0]}
        if better and holds(point):
            for key, kept in better.items():
                kept.append((float(errors[key]), point))
                kept.sort(key=lambda pair: -pair[0])
                del kept[ELITE:]

    def __bool__(self) -> bool:
        return any(self.found.values())

    def pick(self, rng: np.random.Generator) -> tuple[Point, Point]:
        """Return two of them, for the same contestant and leaf."""
        keys = list(self.found)
        kept = self.found[keys[rng.integers(len(keys))]]
        return kept[rng.integers(len(kept))][1], kept[rng.integers(len(kept))][1]

    def best(self, most: int) -> list[Point]:
        """Return the best of each contestant and leaf, then the second best, and so on, each once."""
        ranked = (kept[rank][1] for rank in range(ELITE) for kept in self.found.values() if rank < len(kept))
        return list({id(point): point for point in (*self.broken, *ranked)}.values())[:most]


def _climb(contest: Contest, source: PointSource, first: Point, budget: int) -> Elites:
    """Return the best of `budget` points: the first, random ones up to a third, then neighbours of the best."""
    elites = Elites(len(first.diff))
    for n in range(budget):
        climbs = 3 * n > budget and elites
        point = first if n == 0 else source.move(*elites.pick(source.rng)) if climbs else source.draw()
        errors = contest.estimate(point)
        if errors is not None:
            elites.add(point, errors, contest.holds)
    return elites


def _row(name: str, leaf: int, measured: Sequence[Measured]) -> WorstRow:
    """Return the extremes of one leaf over all points."""
    rule, autodiff = (max((_extreme(m, n, k, leaf) for n, m in enumerate(measured)), key=_ulps) for k in range(2))
    finite = [m for m in measured if np.isfinite(m.errors[1][leaf]).all()]
    compared = [max((float(np.max(m.errors[k][leaf], initial=0.0)) for m in finite), default=0.0) for k in range(2)]
    return WorstRow(name, rule, autodiff, (compared[0], compared[1]))


def _extreme(measured: Measured, point: int, contestant: int, leaf: int) -> Extreme:
    errors = measured.errors[contestant][leaf]
    if not errors.size:
        return Extreme(0.0, (), 0.0, 0.0, point)
    at = tuple(map(int, np.unravel_index(int(np.argmax(errors)), errors.shape)))
    return Extreme(float(errors[at]), at, measured.got[contestant][leaf][at], measured.truth[leaf][at], point)


def _ulps(extreme: Extreme) -> float:
    return extreme.ulps


def _plain(x: complex) -> float | str:
    return x if isinstance(x, float) and math.isfinite(x) else str(x)


def _plain_extreme(extreme: Extreme) -> dict[str, Any]:
    numbers = {name: _plain(np.asarray(getattr(extreme, name)).item()) for name in ("ulps", "got", "truth")}
    return {**numbers, "index": list(extreme.index)}


def _has_bytes(x: Any) -> bool:
    return hasattr(x, "dtype") and not jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key)
