"""The work of a program as items that can be matched with those of another: operations, where, how often, for what.

An item is one kind of operation at one place. Items of equations come from a `Count`, those of arrays kept for the
backward pass from `Residuals`; both say the figures of one run, so that runs of two programs can be set off.
"""

import itertools
import linecache
import os
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import NamedTuple

from refgrad._text import short_path
from refgrad.cost.operations import type_text
from refgrad.cost.primitives import collectives
from refgrad.cost.residuals import Residuals
from refgrad.cost.types import Cost, Count, Operation

FIGURES = ("flops", "transcendentals", "bytes", "residuals", "collectives")
_PACKAGES = f"site-packages{os.sep}"
KEPT = "kept"  # the part of what is not done but kept from forward to backward


class Figures(NamedTuple):
    """Everything that is compared: operations, and bytes moved, kept from forward to backward, exchanged."""

    flops: int = 0
    transcendentals: int = 0
    bytes: int = 0
    """Bytes read and written: of each equation or instruction for itself, of a fusion as a whole."""
    residuals: int = 0
    """Bytes kept from the forward pass to the backward pass, beyond arguments."""
    collectives: int = 0
    """Payload bytes of collectives, on all devices."""

    def plus(self, other: "Figures") -> "Figures":
        """Field by field: self + other."""
        return Figures(*map(int.__add__, self, other))

    def times(self, n: int) -> "Figures":
        """Field by field: n · self."""
        return Figures(*(n * x for x in self))

    def minus(self, other: "Figures") -> "Figures":
        """Field by field: self − other."""
        return self.plus(other.times(-1))


class Item(NamedTuple):
    """Runs of one operation at one place."""

    scope: str
    source: str
    """file:line of the caller's code."""
    primitive: str
    """The primitive, or the opcode of an HLO instruction."""
    operands: str
    results: str
    part: str
    """bias, fan-in, kept, or "" for none in particular."""
    product: str
    """The whole product that a product is a step of."""
    backward: bool
    recomputed: bool
    trips: int
    """Trips of the enclosing loops."""
    runs: int
    each: Figures
    """The figures of one run."""

    @property
    def figures(self) -> Figures:
        """The figures of all runs."""
        return self.each.times(self.runs)

    @property
    def kind(self) -> tuple[str, str, str]:
        """The operation without its place: primitive and types."""
        return self.primitive, self.operands, self.results

    @property
    def shapes(self) -> tuple[str, str, str]:
        """The same without dtypes."""
        return self.primitive, _shapes(self.operands), _shapes(self.results)


def of_count(count: Count, again: Set[tuple[str, ...]] = frozenset()) -> list[Item]:
    """Return the items of a count; work that costs nothing has none.

    `again` are the operations of a backward pass, with their lines, whose values were made before.
    """
    items = []
    for site, cost in count.sites.items():
        runs = _runs(cost, site.operation)
        if any(cost) and runs:
            each = Cost(*(x // runs for x in cost))
            kind = site.primitive, site.operation.operands, site.operation.results
            items.append(
                Item(
                    site.scope,
                    site.source,
                    site.primitive,
                    *site.operation[:5],
                    site.recomputed or (site.operation.backward and (*kind, site.source) in again),
                    site.trips,
                    runs,
                    _figures(site.primitive, each),
                )
            )
    return items


def of_residuals(kept: Residuals) -> Iterator[Item]:
    """Yield an item for each array that is kept."""
    for array in kept.kept:
        results = type_text(array.dtype, array.shape)
        yield Item(
            array.scope,
            array.source,
            array.primitive,
            "",
            results,
            KEPT,
            "",
            False,
            False,
            1,
            1,
            Figures(residuals=array.bytes),
        )


def total(items: Iterable[Item]) -> Figures:
    """Return the figures of all items."""
    return Figures(*map(sum, zip(Figures(), *(item.figures for item in items), strict=True)))


def summed(parts: Iterable[tuple[str, Figures]]) -> dict[str, Figures]:
    """Add up the figures of each name, in order of first appearance."""
    sums: dict[str, Figures] = {}
    for name, figures in parts:
        sums[name] = sums.get(name, Figures()).plus(figures)
    return sums


def portable(stages: Mapping[str, Iterable[Item]]) -> tuple[dict[str, tuple[Item, ...]], dict[str, str]]:
    """Return the items with paths that mean the same on another machine, and the text of each of their lines."""
    places: dict[str, str] = {}
    lines: dict[str, str] = {}
    for item in itertools.chain(*stages.values()):
        if item.source not in places:
            place = places[item.source] = _place(item.source)
            if text := _text(item.source):
                lines[place] = text
    placed = {
        stage: tuple(item._replace(source=places[item.source]) for item in items) for stage, items in stages.items()
    }
    return placed, lines


def _place(source: str) -> str:
    """A line's path from the current folder, or from the folder that packages are installed in."""
    _, installed, rest = source.rpartition(_PACKAGES)
    return rest if installed else short_path(source)


def _text(source: str) -> str:
    """The text of a line; "" where its file cannot be read."""
    file, _, line = source.rpartition(":")
    return linecache.getline(file, int(line)).strip() if line.isdigit() else ""


def merged(items: Iterable[Item]) -> list[Item]:
    """Return the items with the runs of equal ones added up."""
    runs: dict[Item, int] = {}
    for item in items:
        key = item._replace(runs=1)
        runs[key] = runs.get(key, 0) + item.runs
    return [item._replace(runs=n) for item, n in runs.items()]


def _runs(cost: Cost, operation: Operation) -> int:
    """Return how many runs add up to a cost; inside a fused kernel, a run moves no bytes."""
    return next((whole // one for whole, one in zip(cost, operation.each, strict=True) if whole and one), 0)


def _figures(primitive: str, cost: Cost) -> Figures:
    exchanged = 0
    if primitive in collectives.RULES and primitive != "axis_index":
        exchanged = cost.written if primitive.startswith("all_gather") else cost.read
    return Figures(cost.matmul + cost.elementwise, cost.transcendental, cost.read + cost.written, collectives=exchanged)


def _shapes(types: str) -> str:
    return " ".join(one[one.find("[") :] for one in types.split())


def by(items: Iterable[Item], key: str) -> Mapping[str, Figures]:
    """Return the figures by one field of the items, in order of appearance."""
    return summed((getattr(item, key), item.figures) for item in items)
