"""Does a derived rule err by more ulps than autodiff, at the arguments where each errs most?

`refgrad.verify.worst` searches for these arguments in every operation and dtype, from one seed, and measures both
against exact truth over the same points. An error is |got − truth| / ulp(max(|truth|, scale)) of the argument's dtype.
A rule is worse where its worst exceeds 1.25 times autodiff's and an ulp; no rule may be in float32.

    python experiments/worst_ulps.py
    python experiments/worst_ulps.py --set 'operations=["softmax"]' --set budget=20000
"""

import dataclasses
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
from _common import Figure, Result, Table, main, track

from refgrad import verify
from refgrad._text import nearest
from refgrad.ops import TABLE
from refgrad.report.figures import COLORS, INK, MARKERS, legend_below

DTYPES = ("float32", "bfloat16", "float16", "float64")
DIMS = {"b": 2, "s": 3, "h": 4, "n_h": 2, "d": 2, "V": 5, "i": 3, "o": 4, "m": 2, "c": 2, "v": 3}
IMAGE = {"H": 4, "W": 3, "k": 2, "l": 2}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The operations (or "all"), the dtypes, the points tried for each, the seed."""

    operations: list[str]
    dtypes: list[str]
    budget: int
    seed: int

    def __post_init__(self) -> None:
        for key, values, known in (
            ("operations", self.operations, ("all", *TABLE)),
            ("dtypes", self.dtypes, DTYPES),
        ):
            for value in values:
                if value not in known:
                    raise ValueError(f"{key}: {value!r} is unknown: {nearest(value, known)}")
        if self.budget < 1:
            raise ValueError(f"budget is {self.budget}, but must be at least 1")

    @property
    def names(self) -> list[str]:
        """The operations."""
        return list(TABLE) if "all" in self.operations else self.operations


def run(settings: Settings) -> Result:
    """Search in every operation and dtype."""
    found: dict[tuple[str, str], verify.Worst] = {}
    with jax.enable_x64(True):
        for name, dtype in track([(n, d) for n in settings.names for d in settings.dtypes], "searches"):
            row, dims = TABLE[name], DIMS | IMAGE
            arrays = row.sample(settings.seed, dims, jnp.dtype(dtype))
            found[name, dtype] = verify.worst(row.bound(dims), *arrays, seed=settings.seed, budget=settings.budget)
    worse = {
        key: [f"{row.argument} {ulps(row.compared[0])} ({ulps(row.compared[1])})" for row in worst.rows if not row.ok]
        for key, worst in found.items()
        if not worst.ok
    }
    answer = [counted(settings, dtype, found, worse) for dtype in settings.dtypes]
    answer += [f"Worse than autodiff: {n} in {d}, {', '.join(rows)}." for (n, d), rows in worse.items()]
    failures = [f"{name} in float32: {', '.join(rows)}" for (name, dtype), rows in worse.items() if dtype == "float32"]
    table = Table(
        ["operation", *settings.dtypes],
        [[name, *(cell(found[name, dtype]) for dtype in settings.dtypes)] for name in settings.names],
    )
    return Result(answer, table, [figure(settings, found)], data=data(found), failures=failures)


def counted(settings: Settings, dtype: str, found: dict, worse: dict) -> str:
    """Say how the rules of one dtype compare with autodiff."""
    pairs = [extremes(found[name, dtype]) for name in settings.names]
    better = sum(rule < autodiff / 2 for rule, autodiff in pairs)
    return (
        f"{dtype}: of {len(pairs)} operations, {sum((n, dtype) not in worse for n in settings.names)} err no more than "
        f"1.25 times autodiff's ulps and one; {better} err less than half of autodiff's."
    )


def extremes(worst: verify.Worst) -> tuple[float, float]:
    """The rule's and autodiff's most ulps over all arguments."""
    return max(row.rule.ulps for row in worst.rows), max(row.autodiff.ulps for row in worst.rows)


def cell(worst: verify.Worst) -> str:
    """`rule / autodiff`, with a star where the rule is worse in an argument."""
    rule, autodiff = extremes(worst)
    return f"{ulps(rule)} / {ulps(autodiff)}{'' if worst.ok else ' *'}"


def ulps(value: float) -> str:
    """Two or three digits."""
    return f"{value:.2g}" if value < 10 or value >= 1000 else f"{value:.0f}"


def data(found: dict[tuple[str, str], verify.Worst]) -> Table:
    """A line for each argument."""
    header = [
        "operation",
        "dtype",
        "argument",
        "rule (ulps)",
        "autodiff (ulps)",
        "rule, compared",
        "autodiff, compared",
    ]
    header += ["entry", "got", "truth", "digest"]
    rows = [
        [
            *(name, dtype, row.argument, row.rule.ulps, row.autodiff.ulps, *row.compared),
            *(str(list(row.rule.index)), row.rule.got, row.rule.truth, worst.digest),
        ]
        for (name, dtype), worst in found.items()
        for row in worst.rows
    ]
    return Table(header, rows)


def figure(settings: Settings, found: dict[tuple[str, str], verify.Worst]) -> Figure:
    """The rule's worst against autodiff's, a point for each operation and dtype."""
    points = {d: [extremes(found[n, d]) for n in settings.names] for d in settings.dtypes}
    finite = [x for pairs in points.values() for pair in pairs for x in pair if math.isfinite(x)]
    most = 10 * max(1.0, *finite)

    def paint(axes) -> None:
        for k, (dtype, pairs) in enumerate(points.items()):
            x, y = zip(*((min(max(a, 0.1), most), min(max(r, 0.1), most)) for r, a in pairs), strict=True)
            axes.plot(x, y, MARKERS[k], color=COLORS[k], label=dtype)
        line = np.geomspace(0.1, most)
        axes.plot(line, 1.25 * line + 1, color=INK, linewidth=1, label="1.25 autodiff + 1")
        axes.set(xscale="log", yscale="log", xlabel="autodiff's worst (ulps)", ylabel="the rule's worst (ulps)")
        legend_below(axes, ncols=3)

    above = sum(r > 1.25 * a + 1 for pairs in points.values() for r, a in pairs)
    alt = (
        f"Autodiff's worst error on the horizontal axis, the rule's on the vertical one, both logarithmic in ulps, for "
        f"{len(settings.names)} operations in {', '.join(settings.dtypes)}: {above} points lie above the line."
    )
    return Figure("The worst arguments", alt, paint)


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, Settings, run))
