"""What `refgrad bench` prints: contenders as a table, and as a picture of time and temporaries."""

from collections.abc import Sequence
from pathlib import Path

from refgrad._text import table
from refgrad.bench.contenders import Work
from refgrad.bench.run import Row
from refgrad.report import figures

NONE = "–"
LEGEND = """\
time: median over the baseline's median in the same pair; spread: least and largest ratio of neighbouring turns
roofline: seconds of the step's own matmuls, each shape alone, and AdamW's bytes, over this contender's seconds
GFLOP/s: FLOPs of the document's forward and backward pass (nothing recomputed counts) by this contender's seconds
temp.: temporaries in XLA's plan, and their ratio to the baseline's; peak: resident memory of the whole process
faults: minor page faults of a step, the price of memory that the allocator had given back"""


def contender_table(rows: Sequence[Row]) -> str:
    """One line a contender. Memory in MB (10⁶ bytes), rates in tokens and 10⁹ FLOPs a second."""
    header = [
        "contender",
        "time",
        "spread",
        "s/step",
        "tokens/s",
        "GFLOP/s",
        "roofline",
        "temp. MB",
        "ratio",
        "peak MB",
        "trace s",
        "compile s",
        "faults",
    ]
    return table(header, [_line(row) for row in rows])


def _line(row: Row) -> list[str]:
    low, high = row.spread
    return [
        row.label,
        f"{row.ratio:.3f}",
        f"{low:.2f}…{high:.2f}",
        f"{row.seconds:.3f}",
        f"{row.tokens_per_second:,.0f}",
        f"{row.flops_per_second / 1e9:,.0f}",
        NONE if row.roofline is None else f"{row.roofline:.2f}",
        NONE if row.temporaries is None else f"{row.temporaries / 1e6:,.0f}",
        NONE if row.temporaries_ratio is None else f"{row.temporaries_ratio:.3f}",
        f"{row.peak / 1e6:,.0f}",
        NONE if row.trace is None else f"{row.trace:.1f}",
        NONE if row.compile is None else f"{row.compile:.1f}",
        f"{row.faults:,}",
    ]


def title(work: Work) -> str:
    """What a picture of these measurements shows."""
    return f"One training step, {work.batch} × {work.sequence} tokens, against autodiff with unrolled layers"


def draw(rows: Sequence[Row], path: Path, title: str) -> None:
    """Time and temporaries of every contender relative to the baseline, as bars; the roofline as a line.

    Raises ModuleNotFoundError, naming the extra, without matplotlib.
    """
    bars = [row for row in rows if not row.name.startswith("roofline")]
    floor = next((row.ratio for row in rows if row.name == "roofline"), None)
    alt = "; ".join(
        f"{row.label}: time {row.ratio:.2f}"
        + (f", temporaries {row.temporaries_ratio:.2f}" if row.temporaries_ratio else "")
        for row in bars
    )
    with figures.draw(path, title, alt, size=(8, 1.2 + 0.36 * len(bars)), columns=2, sharey=True) as (time, memory):
        labels = [row.label for row in bars]
        low = [row.ratio - min(row.spread[0], row.ratio) for row in bars]
        high = [max(row.spread[1], row.ratio) - row.ratio for row in bars]
        time.barh(labels, [row.ratio for row in bars], xerr=(low, high), color=figures.BLUE, ecolor=figures.INK)
        if floor is not None:
            time.axvline(floor, color=figures.VERMILLION, linestyle="--", label="roofline (float32)")
            time.legend(loc="lower right")
        time.set_xlabel("time of a step / autodiff's")
        time.set_ylabel("contender")
        time.invert_yaxis()
        memory.barh(labels, [row.temporaries_ratio or 0 for row in bars], color=figures.GREEN)
        memory.set_xlabel("temporaries / autodiff's (compiled)")
