"""The cause of each difference between two programs, from what matching leaves over.

A cause is named where the items bear it out: the same operation in another dtype, a product with the same factors, an
operation that its own forward pass has done already. What has no line of code and no such evidence stays unexplained.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from refgrad.cost.comparison.instructions import COUNTER, ONCE, ROUNDING
from refgrad.cost.comparison.items import KEPT, Figures, Item
from refgrad.cost.comparison.matching import Matched, Pair, Side, match, relaid, reshaped, retyped
from refgrad.cost.comparison.products import same as same_products
from refgrad.cost.comparison.program import Program
from refgrad.cost.operations import LAYOUT
from refgrad.cost.walk import NOWHERE

RECOMPUTED = "recomputed"
TRIPS = "another number of trips"
CAST = "cast"
AHEAD = "done in the forward pass"
SHAPES = "other shapes"
PRODUCT = "another algorithm for the same product"
VERSION = "cost of a primitive in another JAX version"
PARAMETERS = "other parameters"
FUSED = "fused away"
REWRITTEN = "rewritten by the compiler"
MOVED = "moved to another scope"
ADDED, REMOVED, CHANGED = "line added", "line removed", "line changed"
SAME_LINE = "other work on the same line"
NOT_KEPT = "other arrays kept"
UNEXPLAINED = "unexplained"
_OF_XLA = (ONCE, ROUNDING, COUNTER)
_CASTS = ("convert_element_type", "convert", "reduce_precision")


class Difference(NamedTuple):
    """A named part of the difference at one place: the later program's figures less the earlier one's."""

    cause: str
    scope: str
    source: str
    text: str
    """The line itself."""
    detail: str
    change: Figures


def differences(before: Program, after: Program, stage: str) -> list[Difference]:
    """Return every difference between two programs at one stage, with its cause."""
    return list(_Naming(before, after, stage, stage).all())


def compiled_differences(lowered: Program, compiled: Program) -> list[Difference]:
    """Return the compiler's changes: the differences between two stages of one program."""
    return list(_Naming(lowered, compiled, "lowered", "compiled").all())


class _Naming:
    """Two programs' items at a stage each, matched once, and the evidence for causes."""

    def __init__(self, before: Program, after: Program, first: str, last: str):
        self.before, self.after = before, after
        self.a, self.b = before.side(first), after.side(last)
        self.found: Matched = match(self.a, self.b)
        self.compiled = last == "compiled"
        self.other_jax = before.versions.get("jax") != after.versions.get("jax")
        self.texts = {False: {self.a.text(i) for i in self.a.items}, True: {self.b.text(i) for i in self.b.items}}
        self.loops = {False: _loops(self.a), True: _loops(self.b)}
        self.again = {False: _again(self.a), True: _again(self.b)}
        self.changed = self._changed()
        self.program_kinds = self._program_kinds() if self.compiled and first == last else set()

    def all(self) -> Iterator[Difference]:
        """Yield the differences of pairs, then those of the leftovers."""
        for pair in self.found.same:
            yield from self._same(pair)
        removed, added = self.found.removed, self.found.added
        ahead = self._ahead(removed, added)
        for sign, items in ((-1, removed), (1, added)):
            for item in items:
                if item in ahead:
                    yield self._single(item, sign, AHEAD, _described(item))
        removed, added = ([item for item in items if item not in ahead] for items in (removed, added))
        pairs, removed, added = relaid(self.a, self.b, removed, added)
        for pair in pairs:
            yield from self._paired(pair, PRODUCT, _described(pair.after))
        pairs, removed, added = retyped(self.a, self.b, removed, added)
        for pair in pairs:
            yield from self._paired(pair, CAST, f"{pair.before.results} → {pair.after.results}")
        products = same_products(removed, added)
        held_back = [[item for item in side if item in products] for side in (removed, added)]
        rest = [[item for item in side if item not in products] for side in (removed, added)]
        pairs, removed, added = reshaped(self.a, self.b, *rest)
        for pair in pairs:
            yield from self._paired(pair, SHAPES, f"{pair.before.results} → {pair.after.results}")
        for sign, items in ((-1, held_back[0]), (1, held_back[1])):
            for item in items:
                yield self._single(item, sign, PRODUCT, item.product or _described(item))
        for sign, items in ((-1, removed), (1, added)):
            for item in items:
                yield self._single(item, sign, self._cause(item, sign), _described(item))

    def _ahead(self, removed: list[Item], added: list[Item]) -> set[Item]:
        """The products of one backward pass that the other program alone has in its forward pass."""
        forward = match(*(Side(list(one.forward), one.lines) for one in (self.before, self.after)))
        found = same_products(removed, forward.added) | same_products(forward.removed, added)
        return found & {*removed, *added}

    def _same(self, pair: Pair) -> Iterator[Difference]:
        """Yield the differences of one operation: in its cost, or in its scope."""
        before, after = pair
        if before.each != after.each:
            yield from self._paired(pair, self._price_cause(pair), _described(after))
        elif before.scope != after.scope:
            yield from self._paired(pair, MOVED, f"{before.scope or '(no scope)'} → {after.scope or '(no scope)'}")

    def _price_cause(self, pair: Pair) -> str:
        if self.compiled and pair.before.each._replace(bytes=0) == pair.after.each._replace(bytes=0):
            return FUSED
        return VERSION if self.other_jax else PARAMETERS

    def _paired(self, pair: Pair, cause: str, detail: str) -> Iterator[Difference]:
        before, after = pair
        if before.scope == after.scope:
            change = after.figures.minus(before.figures)
            if any(change):
                yield Difference(cause, after.scope, after.source, self.b.text(after), detail, change)
            return
        yield self._single(before, -1, cause, detail)
        yield self._single(after, 1, cause, detail)

    def _single(self, item: Item, sign: int, cause: str, detail: str) -> Difference:
        side = self.a if sign < 0 else self.b
        return Difference(cause, item.scope, item.source, side.text(item), detail, item.figures.times(sign))

    def _cause(self, item: Item, sign: int) -> str:
        side = self.a if sign < 0 else self.b
        text = side.text(item)
        if item.part in _OF_XLA:
            return item.part
        if item.recomputed:
            return RECOMPUTED
        if self.other_jax and text in self.texts[sign < 0]:
            return VERSION
        if item.part == KEPT:
            return self._kept_cause(item, sign)
        if item.part:
            return item.part
        if self._other_trips(item, text, sign):
            return TRIPS
        if self.compiled and (item.kind, text) not in self.program_kinds:
            return FUSED if _only_moves(item) else REWRITTEN
        if item.primitive in _CASTS:
            return CAST
        if item.primitive in LAYOUT:
            return "layout"
        return self._line_cause(item, text, sign)

    def _line_cause(self, item: Item, text: str, sign: int) -> str:
        """Name a leftover by its line, which is in both programs, in one, or stands for another one."""
        if item.source in ("", NOWHERE):
            return VERSION if self.other_jax else UNEXPLAINED
        if text in self.texts[sign < 0]:
            return SAME_LINE
        if text in self.changed[sign > 0]:
            return CHANGED
        return ADDED if sign > 0 else REMOVED

    def _kept_cause(self, item: Item, sign: int) -> str:
        """Name an array that only one program keeps: where the other computes it again, that is why."""
        side = self.a if sign < 0 else self.b
        return RECOMPUTED if (item.primitive, side.text(item)) in self.again[sign < 0] else NOT_KEPT

    def _other_trips(self, item: Item, text: str, sign: int) -> bool:
        """Return True where the same equations run in a loop of another length in the other program."""
        here, there = (self.loops[later].get((item.kind, item.part, text)) for later in (sign > 0, sign < 0))
        if here is None or there is None:
            return False
        return here.equations == there.equations and here.trips != there.trips

    def _changed(self) -> dict[bool, set[str]]:
        """Lines of each program that stand where the other one has a line of another text."""
        found: dict[bool, set[str]] = {True: set(), False: set()}
        for before, after in self.found.same:
            old, new = self.a.text(before), self.b.text(after)
            if old != new:
                found[False].add(old)
                found[True].add(new)
        return found

    def _program_kinds(self) -> set[tuple]:
        """Return the instructions, with their lines, that differ before the compiler begins."""
        a, b = self.before.side("lowered"), self.after.side("lowered")
        lowered = match(a, b)
        left: Iterable[tuple[Side, list[Item]]] = ((a, lowered.removed), (b, lowered.added))
        return {(item.kind, side.text(item)) for side, items in left for item in items}


class _Loop(NamedTuple):
    """The equations of one kind on lines of one text, and the trips of the loops around them."""

    equations: int
    trips: frozenset[int]


def _loops(side: Side) -> dict[tuple, _Loop]:
    found: dict[tuple, _Loop] = {}
    for item in side.items:
        key = item.kind, item.part, side.text(item)
        equations, trips = found.get(key, _Loop(0, frozenset()))
        found[key] = _Loop(equations + item.runs // max(item.trips, 1), trips | {item.trips})
    return found


def _again(side: Side) -> set[tuple[str, str]]:
    """Return the operations that a program does again: primitives, each with the text of its line."""
    return {(item.primitive, side.text(item)) for item in side.items if item.recomputed}


def _only_moves(item: Item) -> bool:
    """Return True for a fusion, and for an instruction that computes nothing."""
    return item.primitive == "fusion" or not (item.each.flops or item.each.transcendentals)


def _described(item: Item) -> str:
    return f"{item.primitive} {item.results}".strip()
