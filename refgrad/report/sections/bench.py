"""A saved run of `refgrad bench --json FILE`, shown without measuring again."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from markupsafe import Markup

from refgrad.bench.contenders import Work
from refgrad.bench.parts import PartRow
from refgrad.bench.run import Row
from refgrad.bench.sweep import Point
from refgrad.report import bench
from refgrad.report.sections.section import Section, Shown

KINDS = ("rows", "points", "parts")


def read(path: Path) -> dict[str, Any]:
    """The run's data. Raises ValueError where the file is no run of the bench, OSError where it cannot be read."""
    try:
        data = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"--bench {path} is no JSON: {error}") from error
    if not (isinstance(data, dict) and {"machine", "work"} <= set(data) and any(kind in data for kind in KINDS)):
        raise ValueError(f"--bench {path} is no run of the bench: `refgrad bench --json {path}` writes one")
    return data


def measured(data: dict[str, Any]) -> Section:
    """The contenders of a step, a sweep of them, or the model's parts: as a table and as the bench's own picture."""
    work = Work.of(data["work"])
    if "rows" in data:
        rows = [Row(**row) for row in data["rows"]]
        title, table, note = bench.title(work), bench.contender_table(rows), bench.LEGEND
        picture = _picture(lambda path: bench.draw(rows, path, title))
    elif "points" in data:
        points = [Point(point["value"], [Row(**row) for row in point["rows"]]) for point in data["points"]]
        axis = data["sweep"]
        title, table, note = f"A training step against {axis}", bench.sweep_table(axis, points), ""
        picture = _picture(lambda path: bench.draw_sweep(axis, points, path))
    else:
        parts = [PartRow(**row) for row in data["parts"]]
        title, table, note = "The model's parts under every set of rules", bench.part_table(parts), ""
        lengths = len({part.sequence for part in parts}) > 1
        picture = _picture(lambda path: bench.draw_lengths(parts, path)) if lengths else None
    machine = data["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    about = f"{work.config}. Measured on {machine['processor']}, {machine['cores']} cores; {versions}."
    shown = {"shown": [Shown("What was measured", table, note=note)], "pictures": [picture] if picture else []}
    return Section(title, shown, "bench.html.j2", about=about)


def _picture(draw: Callable[[Path], None]) -> Markup:
    """The SVG that `draw` leaves."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.svg"
        draw(path)
        return Markup(path.read_text())
