"""Does `refgrad.verify` catch wrong rules: every mutant of every operation and argument, in four dtypes and two sizes?

A mutant that changes no cotangent beyond its allowance at three random inputs is equivalent; every other one must be
caught, and every argument must have one that is. Cells: generated/equivalent/caught.

    python experiments/mutants.py
    python experiments/mutants.py --set size=large

The large size takes arguments of a million elements and more. Every operation in four dtypes takes many minutes, the
longest of all experiments; --set 'operations=["gelu"]' or 'dtypes=["float32"]' takes a part.
"""

import dataclasses
import sys
from collections import Counter

import jax
import jax.numpy as jnp
from _common import Figure, Result, Table, main, track

from refgrad import verify
from refgrad._text import nearest
from refgrad.ops import TABLE, OpSpec
from refgrad.report.figures import BLUE, ORANGE, VERMILLION

DTYPES = ("float64", "float32", "bfloat16", "float16")
SMALL = {"b": 2, "s": 6, "h": 12, "n_h": 3, "d": 4, "V": 11, "i": 4, "o": 7, "H": 5, "W": 4, "k": 3, "l": 2}
IMAGE = {"H": 8, "W": 9, "k": 3, "l": 2}
LARGE = {"b": 16, "s": 64, "h": 1024, "n_h": 16, "d": 64, "V": 1024, "i": 1024, "o": 1024, **IMAGE}
FEW_ROWS = {"b": 2, "s": 8}  # where the weights alone have a million elements


def dimensions(row: OpSpec, size: str) -> dict[str, int]:
    """The size's dimensions; few rows of activations where a weight is large without them.

    Raises ValueError where no argument of the large size has a million elements.
    """
    if size == "small":
        return SMALL
    for dims in ({**LARGE, **FEW_ROWS}, LARGE):
        if max(shape.size for shape in row.shapes(dims, jnp.float32)) >= 10**6:
            return dims
    raise ValueError(f"{row.name} has no argument of 10⁶ elements at {LARGE}")


def verdicts(row: OpSpec, dims: dict[str, int], dtype: str) -> dict[str, str]:
    """Each mutant of the operation at `dims` in `dtype`: caught, equivalent or survived."""
    return verify.mutation_score(row.op, *row.sample(0, dims, jnp.dtype(dtype)), *row.static_values(dims))


@dataclasses.dataclass(frozen=True)
class Settings:
    """The arguments' size, the operations (or "all"), the dtypes."""

    size: str
    operations: list[str]
    dtypes: list[str]

    def __post_init__(self) -> None:
        known = {"size": ("small", "large"), "operations": ("all", *TABLE), "dtypes": DTYPES}
        for key, values in (("size", [self.size]), ("operations", self.operations), ("dtypes", self.dtypes)):
            for value in values:
                if value not in known[key]:
                    raise ValueError(f"{key}: {value!r} is unknown: {nearest(value, known[key])}")

    @property
    def names(self) -> list[str]:
        """The operations."""
        return list(TABLE) if "all" in self.operations else self.operations


def run(settings: Settings) -> Result:
    """Make every mutant and put it before the verifier."""
    rows: list[list[str | int]] = []
    named: list[str] = []
    work = [(name, dtype) for name in settings.names for dtype in settings.dtypes]
    with jax.enable_x64(True):
        for name, dtype in track(work, "mutants"):
            row = TABLE[name]
            found = verdicts(row, dimensions(row, settings.size), dtype)
            named += [f"{verdict}: {name} {dtype} {mutant}" for mutant, verdict in found.items() if verdict != "caught"]
            for argument in row.differentiable:
                own = Counter(verdict for mutant, verdict in found.items() if mutant.startswith(f"{argument}: "))
                rows.append([name, argument, dtype, own.total(), own["equivalent"], own["caught"]])
    return result(settings, rows, named)


def result(settings: Settings, rows: list[list], named: list[str]) -> Result:
    """The verdicts as a table by argument and dtype, sums, and what survived."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for name, argument, dtype, *counts in rows:
        cells.setdefault((name, argument), {})[dtype] = "/".join(map(str, counts))
    generated, equivalent, caught = (sum(row[n] for row in rows) for n in (3, 4, 5))
    answer = [
        f"{settings.size}: {generated} generated, {equivalent} equivalent, {caught} caught, "
        f"{generated - equivalent - caught} survived.",
        *(line for line in named if line.startswith("equivalent")),
    ]
    failures = [line for line in named if line.startswith("survived")]
    failures += [f"{name} {argument} {dtype}: no mutant caught" for name, argument, dtype, *_, own in rows if not own]
    header = ["operation", "argument", "dtype", "generated", "equivalent", "caught"]
    table = Table(
        ["operation", "argument", *settings.dtypes],
        [[*key, *(by_dtype[dtype] for dtype in settings.dtypes)] for key, by_dtype in cells.items()],
    )
    return Result(answer, table, [figure(settings, rows)], data=Table(header, rows), failures=failures)


def figure(settings: Settings, rows: list[list]) -> Figure:
    """A bar an operation: its mutants by verdict, over all arguments and dtypes."""
    names = settings.names
    sums = {name: [sum(row[n] for row in rows if row[0] == name) for n in (3, 4, 5)] for name in names}
    parts = {
        "caught": (BLUE, [sums[name][2] for name in names]),
        "equivalent": (ORANGE, [sums[name][1] for name in names]),
        "survived": (VERMILLION, [sums[name][0] - sums[name][1] - sums[name][2] for name in names]),
    }

    def paint(axes) -> None:
        left = [0] * len(names)
        for verdict, (color, counts) in parts.items():
            axes.barh(names, counts, left=left, color=color, label=verdict)
            left = [a + b for a, b in zip(left, counts, strict=True)]
        axes.invert_yaxis()
        axes.margins(y=0.01)
        axes.grid(axis="y", visible=False)
        axes.set(xlabel="mutants", ylabel="operation")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)

    alt = f"A bar for each of {len(names)} operations; in sum " + ", ".join(
        f"{sum(counts)} {verdict}" for verdict, (_, counts) in parts.items()
    )
    return Figure("Wrong rules caught", alt + ".", paint, options={"size": (7, 1.6 + 0.22 * len(names))})


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, Settings, run))
