"""Output of `refgrad bench`: contenders as a table, and as a picture of time and temporaries."""

from collections.abc import Callable, Sequence
from pathlib import Path

from refgrad._text import Table
from refgrad.bench.contenders import BASELINE, Workload
from refgrad.bench.parts import PartRow
from refgrad.bench.run import ContenderRow
from refgrad.bench.sweep import SweepPoint
from refgrad.report import figures

NONE = "–"
OF = ("part", "rules")
LEGEND = """\
time: median over the baseline's median in the same pair; spread: least and largest ratio of neighbouring turns
roofline: seconds of the step's own matmuls, each shape alone, and AdamW's bytes, over this contender's seconds
GFLOP/s: FLOPs of the document's forward and backward pass (nothing recomputed counts) by this contender's seconds
temp.: temporaries in XLA's plan, and their ratio to the baseline's; peak: resident memory of the whole process
compile: XLA's; of PyTorch, what its first step took beyond the later ones; of the roofline, every product's
faults: minor page faults of the last step, the price of memory that the allocator had given back"""


COLUMNS: dict[str, Callable[[ContenderRow], str]] = {
    "contender": lambda row: row.label,
    "time": lambda row: f"{row.ratio:.3f}",
    "spread": lambda row: f"{row.spread[0]:.2f}…{row.spread[1]:.2f}",
    "s/step": lambda row: f"{row.seconds:.3f}",
    "tokens/s": lambda row: f"{row.tokens_per_second:,.0f}",
    "GFLOP/s": lambda row: f"{row.flops_per_second / 1e9:,.0f}",
    "roofline": lambda row: _known(row.roofline, ".2f"),
    "temp. MB": lambda row: NONE if row.temporaries is None else f"{row.temporaries / 1e6:,.0f}",
    "ratio": lambda row: _known(row.temporaries_ratio, ".3f"),
    "peak MB": lambda row: f"{row.peak / 1e6:,.0f}",
    "trace s": lambda row: _known(row.trace, ".1f"),
    "compile s": lambda row: _known(row.compile, ".1f"),
    "faults": lambda row: f"{row.faults:,}",
}
SWEPT = ("contender", "time", "s/step", "temp. MB", "trace s", "compile s")


def _known(value: float | None, form: str) -> str:
    return NONE if value is None else format(value, form)


def contender_table(rows: Sequence[ContenderRow]) -> Table:
    """One line a contender. Memory in MB (10⁶ bytes), rates in tokens and 10⁹ FLOPs a second."""
    return Table(list(COLUMNS), [[cell(row) for cell in COLUMNS.values()] for row in rows])


def part_table(rows: Sequence[PartRow]) -> Table:
    """One line a part and set of rules: forward and backward, beside autodiff's. Memory in MB (10⁶ bytes)."""
    header = ["part", "tokens", "rules", "ms", "ratio", "temp. MB", "ratio", "kept MB", "ratio"]
    lines = []
    for row in rows:
        base = _autodiffs(row, rows)
        lines.append(
            [
                row.part,
                f"{row.batch} × {row.sequence}",
                row.rules,
                NONE if row.seconds is None else f"{1e3 * row.seconds:.2f}",
                _known(row.ratio, ".3f"),
                *_beside(row.temporaries, base.temporaries),
                *_beside(row.residuals, base.residuals),
            ]
        )
    return Table(header, lines)


def _autodiffs(row: PartRow, rows: Sequence[PartRow]) -> PartRow:
    """Autodiff's row of the same part at the same length."""
    same = (one for one in rows if (one.part, one.sequence, one.rules) == (row.part, row.sequence, BASELINE))
    return next(same, row)


def _beside(size: int, reference: int) -> tuple[str, str]:
    """Bytes in MB, and over the reference's."""
    return f"{size / 1e6:,.1f}", f"{size / reference:.3f}" if reference else NONE


def sweep_table(axis: str, points: Sequence[SweepPoint]) -> Table:
    """One line a point and contender."""
    lines = []
    for point in points:
        reference = point.rows[0].compile or 0.0
        for row in point.rows:
            compiling = f"{row.compile / reference:.2f}" if row.compile and reference else NONE
            lines.append([str(point.value), *(COLUMNS[name](row) for name in SWEPT), compiling])
    return Table([axis, *SWEPT, "compile / autodiff's"], lines)


def title(work: Workload) -> str:
    """Title of a picture of these measurements."""
    return f"One training step, {work.batch} × {work.sequence} tokens, against autodiff with unrolled layers"


def draw(rows: Sequence[ContenderRow], path: Path, title: str) -> None:
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
    with figures.draw(path, title, alt, size=(8, 1.5 + 0.36 * len(bars)), columns=2, sharey=True) as (time, memory):
        labels = [row.label for row in bars]
        low = [row.ratio - min(row.spread[0], row.ratio) for row in bars]
        high = [max(row.spread[1], row.ratio) - row.ratio for row in bars]
        time.barh(labels, [row.ratio for row in bars], xerr=(low, high), color=figures.BLUE, ecolor=figures.INK)
        if floor is not None:
            time.axvline(floor, color=figures.VERMILLION, linestyle="--", label="roofline (float32)")
            figures.legend_at_foot(time)
        time.set_xlabel("time of a step / autodiff's")
        time.set_ylabel("contender")
        time.invert_yaxis()
        memory.barh(labels, [row.temporaries_ratio or 0 for row in bars], color=figures.GREEN)
        memory.set_xlabel("temporaries / autodiff's (compiled)")


def draw_sweep(axis: str, points: Sequence[SweepPoint], path: Path) -> None:
    """Seconds of a step, temporaries and seconds to compile against the axis, a line a contender."""
    names = [row.name for row in points[0].rows]
    values = [point.value for point in points]
    panels = (
        ("seconds a step", lambda row: row.seconds),
        ("temporaries (MB)", lambda row: (row.temporaries or 0) / 1e6),
        ("seconds to compile", lambda row: row.compile or 0.0),
    )
    alt = f"Against {axis} {values[0]} to {values[-1]}: " + "; ".join(
        f"{row.label} {row.seconds:.2f} s a step and {row.compile or 0:.1f} s to compile at {values[-1]}"
        for row in points[-1].rows
    )
    shown = f"A training step against {axis}"
    with figures.draw(path, shown, alt, size=(11, 4), columns=3) as axes:
        for one, (label, value) in zip(axes, panels, strict=True):
            for n, name in enumerate(names):
                rows = [next(row for row in point.rows if row.name == name) for point in points]
                one.plot(values, [value(row) for row in rows], label=rows[0].label, **figures.series(n))
            one.set(xlabel=axis, ylabel=label, ylim=(0, None), xticks=values)
        figures.legend_at_foot(axes[1])


def draw_parts(rows: Sequence[PartRow], path: Path) -> None:
    """Time and temporaries of each part relative to autodiff's, a bar a set of rules; autodiff itself is the line at 1.

    Temporaries are drawn on a logarithmic axis: where autodiff fuses all of a part, it has next to none.
    A part that was not run has no bar, nor has one without temporaries in autodiff.
    """
    parts, rules = (list(dict.fromkeys(getattr(row, of) for row in rows if row.rules != BASELINE)) for of in OF)
    found = {(row.part, row.rules): (row.ratio, _over(row, rows)) for row in rows}
    alt = "; ".join(
        f"{part}, {name}: time {_shown(found[part, name][0])}, temporaries {_shown(found[part, name][1])}"
        for part in parts
        for name in rules
        if (part, name) in found
    )
    shown = f"Forward and backward of each part against autodiff's, {rows[0].batch} × {rows[0].sequence} tokens"
    size = (9, 1.4 + 0.42 * len(parts))
    with figures.draw(path, shown, alt, size=size, columns=2, sharey=True) as axes:
        for at, (one, label) in enumerate(zip(axes, ("time", "temporaries, compiled"), strict=True)):
            for n, name in enumerate(rules):
                places = [place + 0.38 * (n - (len(rules) - 1) / 2) for place in range(len(parts))]
                bars = [found.get((part, name), (None, None))[at] or 0.0 for part in parts]
                one.barh(places, bars, height=0.36, color=figures.COLORS[n], hatch=figures.HATCHES[n], label=name)
            one.axvline(1, color=figures.INK, linestyle="--", linewidth=1)
            one.set(xlabel=f"{label} / autodiff's", yticks=range(len(parts)), yticklabels=parts)
        axes[0].set_ylabel("part")
        axes[0].invert_yaxis()
        axes[1].set_xscale("log")
        figures.legend_at_foot(axes[1])


def _over(row: PartRow, rows: Sequence[PartRow]) -> float | None:
    """Temporaries over autodiff's, None where it has none."""
    reference = _autodiffs(row, rows).temporaries
    return row.temporaries / reference if reference else None


def _shown(ratio: float | None) -> str:
    return "unknown" if ratio is None else f"{ratio:.2f}"


def draw_lengths(rows: Sequence[PartRow], path: Path) -> None:
    """Seconds and temporaries of each part against the length, a line a set of rules; both axes logarithmic."""
    parts, rules = (list(dict.fromkeys(getattr(row, of) for row in rows)) for of in OF)
    lengths = sorted({row.sequence for row in rows})
    alt = "; ".join(
        f"{row.part} at {row.sequence}, {row.rules}: {row.temporaries / 1e6:,.0f} MB"
        + (f", {row.seconds:.2f} s" if row.seconds is not None else ", not run")
        for row in rows
    )
    shown = "Forward and backward of one sequence against its length"
    with figures.draw(path, shown, alt, size=(10, 3.4 * len(parts)), rows=len(parts), columns=2, squeeze=False) as axes:
        for (time, memory), part in zip(axes, parts, strict=True):
            for n, name in enumerate(rules):
                mine = [row for row in rows if (row.part, row.rules) == (part, name)]
                run = [row for row in mine if row.seconds is not None]
                time.plot([row.sequence for row in run], [row.seconds for row in run], label=name, **figures.series(n))
                memory.plot([r.sequence for r in mine], [r.temporaries / 1e6 for r in mine], **figures.series(n))
            for one, label in ((time, "seconds"), (memory, "temporaries (MB)")):
                one.set(xlabel="length (tokens)", ylabel=label, yscale="log", title=part)
                one.set_xscale("log", base=2)
                one.set_xticks(lengths, map(str, lengths))
            time.legend()
