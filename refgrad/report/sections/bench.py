"""A saved run of `refgrad bench --json FILE`, shown without measuring again."""

import json
import tempfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from refgrad.bench.contenders import Workload
from refgrad.bench.parts import PartRow
from refgrad.bench.run import ContenderRow
from refgrad.bench.sweep import SweepPoint
from refgrad.report import bench
from refgrad.report.sections.section import Section, Shown


def read(path: Path) -> dict[str, Any]:
    """The run's data. Raises ValueError where the file is not a run of the bench, OSError where it cannot be read."""
    try:
        data = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"--bench {path} is not JSON: {error}") from error
    try:
        versions, _, found = data["machine"]["versions"].items(), Workload.of(data["work"]), _found(data)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"--bench {path} is not a run of the bench: `refgrad bench --json {path}` writes one ({error})"
        ) from error
    if not (versions and found):
        raise ValueError(f"--bench {path} is a run of the bench that measured nothing: `refgrad bench` writes another")
    return data


def _found(data: dict[str, Any]) -> list[Any]:
    """The measurements in the bench's own types."""
    if "rows" in data:
        return [ContenderRow(**row) for row in data["rows"]]
    if "points" in data:
        return [SweepPoint(point["value"], [ContenderRow(**row) for row in point["rows"]]) for point in data["points"]]
    return [PartRow(**row) for row in data["parts"]]


def measured(data: dict[str, Any]) -> Section:
    """The contenders of a step, a sweep of them, or the model's parts: as a table and as the bench's own picture."""
    work, found = Workload.of(data["work"]), _found(data)
    note = ""
    draw: Any
    if "rows" in data:
        title, table, note = bench.title(work), bench.contender_table(found), bench.LEGEND
        draw = partial(bench.draw, title=title)
    elif "points" in data:
        axis = data["sweep"]
        title, table = f"A training step against {axis}", bench.sweep_table(axis, found)
        draw = partial(bench.draw_sweep, axis)
    else:
        title, table = "The model's parts under every set of rules", bench.part_table(found)
        draw = bench.draw_lengths if len({part.sequence for part in found}) > 1 else bench.draw_parts
    machine = data["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    about = f"{work.config}. Measured on {machine['processor']}, {machine['cores']} cores; {versions}."
    picture = _picture(partial(draw, found), f"bench-{zlib.crc32(json.dumps(data).encode()):08x}")
    shown = {"shown": [Shown("What was measured", table, note=note)], "pictures": [picture]}
    return Section(title, shown, "bench.html.j2", about=about)


def _picture(draw: Callable[[Path], None], name: str) -> Markup:
    """The SVG that `draw` leaves, its ids beginning with `name`: a page may show several."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.svg"
        draw(path)
        return Markup(path.read_text())
