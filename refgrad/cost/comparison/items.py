"""The work of a program as items that can be matched with those of another: operations, where, how often, for what.

An item is one kind of operation at one place. Items of equations come from a `Count`, those of arrays kept for the
backward pass from `Residuals`; both say the figures of one run, so that runs of two programs can be set off.
"""

import linecache
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from refgrad.cost.primitives import collectives
from refgrad.cost.residuals import Residuals
from refgrad.cost.types import Cost, Count, Operation

FIGURES = ("flops", "transcendentals", "bytes", "residuals", "collectives")
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
    """For a product: the whole one that it is a step of."""
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
        """What is done, wherever: primitive and types."""
        return self.primitive, self.operands, self.results

    @property
    def shapes(self) -> tuple[str, str, str]:
        """The same without dtypes."""
        return self.primitive, _shapes(self.operands), _shapes(self.results)


def of_count(count: Count) -> list[Item]:
    """Return the items of a count; work that costs nothing has none."""
    items = []
    for site, cost in count.sites.items():
        runs = _runs(cost, site.operation)
        if any(cost) and runs:
            each = Cost(*(x // runs for x in cost))
            items.append(
                Item(
                    site.scope,
                    site.source,
                    site.primitive,
                    *site.operation[:5],
                    site.recomputed,
                    site.trips,
                    runs,
                    _figures(site.primitive, each),
                )
            )
    return items


def of_residuals(kept: Residuals) -> Iterator[Item]:
    """Yield an item for each array that is kept."""
    for array in kept.kept:
        results = f"{array.dtype}[{','.join(map(str, array.shape))}]"
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
    figures = Figures()
    for item in items:
        figures = figures.plus(item.figures)
    return figures


def texts(items: Iterable[Item]) -> dict[str, str]:
    """Return the text of each source line, as far as its file can be read."""
    found = {}
    for source in dict.fromkeys(item.source for item in items):
        file, _, line = source.rpartition(":")
        if line.isdigit() and (text := linecache.getline(file, int(line)).strip()):
            found[source] = text
    return found


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
    return Figures(
        cost.matmul + cost.elementwise, cost.transcendental, cost.read + cost.written, collectives=exchanged
    )


def _shapes(types: str) -> str:
    return " ".join(one[one.find("[") :] for one in types.split())


def by(items: Iterable[Item], key: str) -> Mapping[str, Figures]:
    """Return the figures by one field of the items, in order of appearance."""
    parts: dict[str, Figures] = {}
    for item in items:
        name = getattr(item, key)
        parts[name] = parts.get(name, Figures()).plus(item.figures)
    return parts
