"""Costs as flame graphs: JSON that https://www.speedscope.app opens, by scope, source line and primitive."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from refgrad._files import write_json
from refgrad._text import nearest
from refgrad.cost.comparison.items import FIGURES, Item, total

SCHEMA = "https://www.speedscope.app/file-format-schema.json"
_COUNTED = ("flops", "transcendentals")


class Sample(NamedTuple):
    """A weight of a profile at one place."""

    scope: str
    source: str
    """file:line; "" for none."""
    primitive: str
    weight: float


class Profile(NamedTuple):
    """One flame graph: its name, its unit ("none", "bytes" or "seconds"), and its samples."""

    name: str
    unit: str
    samples: Sequence[Sample]


def profile(items: Iterable[Item], of: str, name: str = "") -> Profile:
    """Return the flame graph of one figure of some items.

    Raises ValueError for an unknown figure.
    """
    if of not in FIGURES:
        raise ValueError(f"of={of!r} is not a figure: {nearest(str(of), FIGURES)}")
    samples = [Sample(item.scope, item.source, item.primitive, getattr(item.figures, of)) for item in items]
    return Profile(" ".join(filter(None, (name, of))), "none" if of in _COUNTED else "bytes", samples)


def profiles(items: Sequence[Item], name: str = "") -> list[Profile]:
    """Return a flame graph for each figure that is not 0."""
    return [profile(items, of, name) for of, n in total(items)._asdict().items() if n]


def write(path: str | Path, given: Iterable[Profile]) -> None:
    """Write flame graphs that share their frames, whole or not at all.

    Raises FileNotFoundError where the folder is missing.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target}: no folder {target.parent}: create it, or write elsewhere")
    frames: dict[tuple[str, str], int] = {}
    made = [_profile(one, frames) for one in given]
    write_json(target, {"$schema": SCHEMA, "shared": {"frames": list(map(_frame, frames))}, "profiles": made})


def _profile(given: Profile, frames: dict[tuple[str, str], int]) -> dict[str, Any]:
    """The stack of a sample: its scopes from the outermost, its line, its primitive."""
    samples, weights = [], []
    for sample in given.samples:
        if sample.weight > 0:
            stack = [(name, "") for name in sample.scope.split("/") if name]
            stack += [(Path(sample.source).name, sample.source)] if sample.source else []
            samples.append([frames.setdefault(frame, len(frames)) for frame in (*stack, (sample.primitive, ""))])
            weights.append(sample.weight)
    return {
        "type": "sampled",
        "name": given.name,
        "unit": given.unit,
        "startValue": 0,
        "endValue": sum(weights),
        "samples": samples,
        "weights": weights,
    }


def _frame(frame: tuple[str, str]) -> dict[str, Any]:
    name, source = frame
    file, _, line = source.rpartition(":")
    return {"name": name, "file": file, "line": int(line)} if line.isdigit() else {"name": name}
