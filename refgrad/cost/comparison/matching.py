"""The items of two programs set off against each other, from the strictest agreement to the loosest.

Runs of the same operation at the same place come first, then the same operation where its line has the same text,
then elsewhere in its scope, then anywhere. The rest of both sides is different work, which is paired again where
only its dtypes differ, or only its shapes.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from refgrad.cost.comparison.items import Item, merged
from refgrad.cost.comparison.products import sizes


class Side(NamedTuple):
    """One program's items, and the text of the lines that they come from."""

    items: list[Item]
    lines: Mapping[str, str]

    def text(self, item: Item) -> str:
        """The text of the line of an item; where no file can be read, the line itself."""
        return self.lines.get(item.source, item.source)


class Pair(NamedTuple):
    """A number of runs in one program that match as many in the other."""

    before: Item
    after: Item


class Matched(NamedTuple):
    """The work that two programs share, and the work that only one of them has."""

    same: list[Pair]
    """The same operation on the same types: any difference is in the cost of a run."""
    removed: list[Item]
    added: list[Item]


Key = Callable[[Side, Item], Any]

_SAME: tuple[Key, ...] = (
    lambda side, i: (i.kind, i.part, i.recomputed, i.scope, i.backward, side.text(i), i.source),
    lambda side, i: (i.kind, i.part, i.recomputed, i.scope, i.backward, side.text(i)),
    lambda side, i: (i.kind, i.part, i.recomputed, i.scope, i.backward),
    lambda side, i: (i.kind, i.part, i.recomputed, side.text(i)),
    lambda side, i: (i.kind, i.part, i.recomputed),
    # what one program does in its backward pass, the other may do where it recomputes
    lambda side, i: (i.kind, i.part, side.text(i), i.scope),
    lambda side, i: (i.kind, i.part, i.scope),
)
_RELAID: tuple[Key, ...] = (
    lambda side, i: (sizes(i), i.recomputed, i.scope, side.text(i)),
    lambda side, i: (sizes(i), i.recomputed, i.scope),
    lambda side, i: (sizes(i), i.recomputed, i.backward),
    lambda side, i: (sizes(i), i.recomputed),
)
_RETYPED: tuple[Key, ...] = (
    lambda side, i: (i.shapes, i.part, i.recomputed, i.scope, side.text(i)),
    lambda side, i: (i.shapes, i.part, i.recomputed, i.scope),
    lambda side, i: (i.shapes, i.part, i.recomputed),
)
_RESHAPED: tuple[Key, ...] = (
    lambda side, i: (i.primitive, i.part, i.recomputed, i.backward, i.scope, side.text(i), i.trips),
    lambda side, i: (i.primitive, i.part, i.recomputed, i.scope, side.text(i)),
)


def match(a: Side, b: Side) -> Matched:
    """Set the runs of the same operations off, at the same place first."""
    pairs, removed, added = _pair(a, b, merged(a.items), merged(b.items), _SAME)
    return Matched(pairs, removed, added)


def relaid(a: Side, b: Side, removed: list[Item], added: list[Item]) -> tuple[list[Pair], list[Item], list[Item]]:
    """Pair the products that are left where their sizes are the same, however their operands lie in memory."""
    (gone, others), (new, more) = _products(removed), _products(added)
    pairs, gone, new = _pair(a, b, gone, new, _RELAID)
    return pairs, [*others, *gone], [*more, *new]


def _products(items: list[Item]) -> tuple[list[Item], list[Item]]:
    return [item for item in items if sizes(item)], [item for item in items if not sizes(item)]


def retyped(a: Side, b: Side, removed: list[Item], added: list[Item]) -> tuple[list[Pair], list[Item], list[Item]]:
    """Pair leftovers that differ only in their dtypes."""
    return _pair(a, b, removed, added, _RETYPED)


def reshaped(a: Side, b: Side, removed: list[Item], added: list[Item]) -> tuple[list[Pair], list[Item], list[Item]]:
    """Pair leftovers whose lines have the same text and that differ only in their types."""
    return _pair(a, b, removed, added, _RESHAPED)


def _pair(
    a: Side, b: Side, removed: list[Item], added: list[Item], keys: Iterable[Key]
) -> tuple[list[Pair], list[Item], list[Item]]:
    pairs: list[Pair] = []
    for key in keys:
        waiting: dict[Any, list[Item]] = {}
        for item in added:
            waiting.setdefault(key(b, item), []).append(item)
        rest: list[Item] = []
        for item in removed:
            others = waiting.get(key(a, item), [])
            while item.runs and others:
                n = min(item.runs, others[0].runs)
                pairs.append(Pair(item._replace(runs=n), others[0]._replace(runs=n)))
                item = item._replace(runs=item.runs - n)
                others[0] = others[0]._replace(runs=others[0].runs - n)
                if not others[0].runs:
                    others.pop(0)
            if item.runs:
                rest.append(item)
        removed, added = rest, [item for others in waiting.values() for item in others]
    return pairs, removed, added
