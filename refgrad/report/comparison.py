"""A comparison of two programs as a picture: for each figure that changes, the causes and what each adds or saves."""

from pathlib import Path
from typing import Any

from refgrad.cost import Comparison
from refgrad.cost.comparison.items import FIGURES
from refgrad.report import figures

MOST = 8  # causes; the rest are one bar
UNITS = {"flops": "FLOPs", "transcendentals": "transcendentals", "bytes": "bytes moved"}
UNITS |= {"residuals": "bytes kept", "collectives": "bytes exchanged"}


def draw(path: str | Path, found: Comparison) -> None:
    """Draw a comparison into an SVG, or a PNG.

    Raises ValueError where nothing changes, ModuleNotFoundError without matplotlib.
    """
    changes = causes(found)
    shown = [n for n in range(len(FIGURES)) if any(change[n] for change in changes.values())]
    if not shown:
        raise ValueError(f"{path}: nothing to draw: {found.before.name} and {found.after.name} cost the same")
    title = f"{found.before.name} → {found.after.name}: what changes, by cause"
    size = (2.2 + 2.8 * len(shown), 1.6 + 0.4 * len(changes))
    with figures.draw(path, title, text(found), size=size, columns=len(shown), sharey=True, squeeze=False) as panels:
        paint(panels[0], found, changes, shown)


def causes(found: Comparison) -> dict[str, tuple[int, ...]]:
    """Cause → change of each figure, the largest first, those beyond `MOST` in one."""
    ranked = sorted(found.by_cause.items(), key=lambda one: max(_shares(found, one[1])), reverse=True)
    rest = [change for _, change in ranked[MOST:]]
    bars: dict[str, tuple[int, ...]] = dict(ranked[:MOST])
    return {**bars, f"{len(rest)} more": tuple(map(sum, zip(*rest, strict=True)))} if rest else bars


def paint(panels: Any, found: Comparison, changes: dict[str, tuple[int, ...]], shown: list[int]) -> None:
    """Draw one panel a figure: bars in percent of the earlier program, in units where that one has none."""
    for axes, n in zip(panels, shown, strict=True):
        before = found.figures[0][n]
        widths = [100 * change[n] / before if before else change[n] for change in changes.values()]
        colors = [figures.VERMILLION if width > 0 else figures.BLUE for width in widths]
        axes.barh(range(len(changes)), widths, color=colors, linewidth=0)
        axes.axvline(0, color=figures.INK, linewidth=1)
        axes.margins(x=0.05)
        axes.locator_params(axis="x", nbins=4)
        axes.grid(axis="y", visible=False)
        axes.set(xlabel=f"{UNITS[FIGURES[n]]} (%)" if before else UNITS[FIGURES[n]], ylabel="")
    first = panels[0]
    first.set_yticks(range(len(changes)), list(changes))
    first.invert_yaxis()
    first.set_ylabel("cause")


def text(found: Comparison) -> str:
    """The picture in words."""
    sides = zip(FIGURES, *found.figures, strict=True)
    totals = ", ".join(f"{UNITS[name]} {a:,} to {b:,}" for name, a, b in sides if a != b)
    return f"Bars by cause, one panel a figure. In all: {totals or 'nothing changes'}."


def _shares(found: Comparison, change: tuple[int, ...]) -> list[float]:
    return [abs(x) / (a or b or 1) for x, a, b in zip(change, *found.figures, strict=True)]
