"""Products of the same sizes: by other layouts of their operands, in another order of their factors, or in parts."""

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

from refgrad.cost.comparison.items import Item

_DOTS = ("dot_general", "dot")
_TYPE = re.compile(r"(\w+)\[([\d,]*)\]")


class Sizes(NamedTuple):
    """The sizes of a product of matrices: how many, rows and columns (the smaller first), and the contracted length."""

    dtypes: tuple[str, ...]
    batch: int
    short: int
    long: int
    contracted: int

    def divides(self, whole: "Sizes") -> bool:
        """Return True where the other product can be cut into products of these sizes."""
        turned = self._replace(short=self.long, long=self.short)
        return self.dtypes == whole.dtypes and any(
            not any(n % m for m, n in zip(part[1:], whole[1:], strict=True)) for part in (self, turned)
        )


def sizes(item: Item) -> Sizes | None:
    """Return the sizes of a product, from its types and its FLOPs; None for anything else."""
    operands = _TYPE.findall(item.operands)
    found = _TYPE.search(item.results)
    if item.primitive not in _DOTS or len(operands) != 2 or found is None or not item.each.flops:
        return None
    left, right, out = (_elements(shape) for _, shape in (*operands, found.groups()))
    contracted = item.each.flops // (2 * out)
    batch = left * right // (out * contracted**2)
    if not batch or 2 * out * contracted != item.each.flops:
        return None
    short, long = sorted((left // (batch * contracted), right // (batch * contracted)))
    return Sizes(tuple(dtype for dtype, _ in operands), batch, short, long, contracted)


def same(removed: list[Item], added: list[Item]) -> set[Item]:
    """Return the leftovers that are steps of a product which both programs compute, whole or in parts."""
    labels = {i.product for i in removed if i.product} & {i.product for i in added if i.product}
    found = {item for item in (*removed, *added) if item.product in labels}
    groups = [_groups(item for item in side if item not in found) for side in (removed, added)]
    for one, other in (groups, groups[::-1]):
        for whole, items in one.items():
            for part, others in other.items():
                if part.divides(whole) and _flops(items) == _flops(others):
                    found |= {*items, *others}
    return found


def _groups(items: Iterable[Item]) -> dict[Sizes, list[Item]]:
    groups: dict[Sizes, list[Item]] = {}
    for item in items:
        if (size := sizes(item)) is not None:
            groups.setdefault(size, []).append(item)
    return groups


def _flops(items: list[Item]) -> int:
    return sum(item.figures.flops for item in items)


def _elements(shape: str) -> int:
    return math.prod(map(int, shape.split(","))) if shape else 1
