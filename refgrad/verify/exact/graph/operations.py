"""The operations that nodes are made by: entries given, computed, moved, added up, multiplied and chosen."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.extend.core import JaxprEqn

from refgrad.verify.exact.arrays import Array, NotDecided, full, matmul
from refgrad.verify.exact.graph.nodes import Fetch, Needed, Node, NodeOperation, Numbers
from refgrad.verify.exact.graph.places import NOWHERE, Places, distinct, union, within
from refgrad.verify.exact.operations import COMPARED, LIFTED, MOVED, SUMMED, operations_within, weight_of
from refgrad.verify.exact.scalars.arithmetic import DIV, MUL, Linear
from refgrad.verify.exact.scalars.decisions import Select
from refgrad.verify.exact.scalars.functions import Function
from refgrad.verify.exact.scalars.germ import Undecided


class Source(NodeOperation):
    """Entries that are given: `entries(positions)`."""

    weight = LIFTED

    def __init__(self, entries: Callable[[np.ndarray], np.ndarray]) -> None:
        self.entries = entries

    def needs(self, node: Node, values: Places, changes: Places, moved: Sequence[Places]) -> Needed:
        """Return nothing."""
        return []

    def evaluate(self, node: Node, at: Places, fetch: Fetch) -> np.ndarray:
        """Return the entries."""
        return self.entries(at)


class Leaf(Source):
    """An argument, by its number: its entries are read when a slice is evaluated."""

    def __init__(self, number: int) -> None:
        self.number = number

    def evaluate(self, node: Node, at: Places, fetch: Fetch) -> np.ndarray:
        """Return the entries."""
        return fetch.inputs(self.number, at)


class Map:
    """The source of each of n entries, as positions in what holds `held` of them; −1 for none."""

    def __init__(self, compute: Callable[[], np.ndarray], held: int) -> None:
        self._compute, self._held = compute, held

    @functools.cached_property
    def sources(self) -> np.ndarray | None:
        """The position of each source; None where each entry is its own."""
        found = np.asarray(self._compute(), np.int64).ravel()
        return None if np.array_equal(found, np.arange(self._held)) else found

    @functools.cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        assert self.sources is not None
        order = np.argsort(self.sources, kind="stable")
        return self.sources[order], order

    def back(self, at: np.ndarray) -> np.ndarray:
        """Return the sources of some entries, in order."""
        return at if self.sources is None else self.sources[at]

    def forth(self, sources: Places) -> Places:
        """Return the entries that have one of some sources."""
        if self.sources is None or not sources.size:
            return sources
        values, order = self._sorted
        starts, ends = (np.searchsorted(values, sources, side) for side in ("left", "right"))
        return np.sort(np.concatenate([order[s:e] for s, e in zip(starts, ends, strict=True)]))


class Each(NodeOperation):
    """A function of each entry; axes of length 1 are broadcast."""

    def __init__(self, f: Function, shape: tuple[int, ...], operands: Sequence[Node]) -> None:
        self.f, self.weight = f, weight_of(f)
        self.maps = [
            None if x.shape == shape else Map(functools.partial(_broadcast, x.shape, shape), x.size) for x in operands
        ]

    def _sources(self, i: int, at: np.ndarray, node: Node) -> np.ndarray:
        if (found := self.maps[i]) is None:
            return at
        return np.zeros_like(at) if node.operands[i].size == 1 else found.back(at)

    def moves(self, node: Node, moved: Sequence[Places]) -> Places:
        """Return the entries that have an operand that moves."""
        found = (s if m is None else m.forth(s) for m, s in zip(self.maps, moved, strict=True))
        return functools.reduce(union, found, NOWHERE)

    def needs(self, node: Node, values: Places, changes: Places, moved: Sequence[Places]) -> Needed:
        """Return all operands, but of those that stand still beside what moves only what the change depends on."""
        sources = [self._sources(i, changes, node) for i in range(len(moved))]
        moving = [within(m, s) for m, s in zip(moved, sources, strict=True)]
        found = []
        for i, (by_value, by_change) in enumerate(_relevance(self.f, moving)):
            valued = union(distinct(self._sources(i, values, node)), distinct(sources[i][by_value]))
            found.append((valued, distinct(sources[i][by_change])))
        return found

    def evaluate(self, node: Node, at: Places, fetch: Fetch) -> np.ndarray:
        """Return the function of the operands' entries."""
        return self.f.each(*(fetch(i, self._sources(i, at, node)) for i in range(len(node.operands))))


def _broadcast(old: tuple[int, ...], new: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(np.arange(math.prod(old)).reshape(old), new)


def _relevance(f: Function, moving: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return for each operand where its value matters for how much the result moves, and where only its change does."""
    none = np.zeros_like(moving[0])
    if isinstance(f, Linear):
        return [(none, m) for m in moving]
    if f is MUL:
        a, b = moving
        return [(b, a & ~b), (a, b & ~a)]
    if f is DIV or isinstance(f, Select):
        k = 1 if f is DIV else 0  # the operand on which the result depends in another way
        return [(~none, none) if i == k else (moving[k], m & ~moving[k]) for i, m in enumerate(moving)]
    return [(~none, none)] * len(moving)


class Move(NodeOperation):
    """Entries moved, repeated and left out: of all operands, counted through."""

    weight = MOVED

    def __init__(self, f: Callable[..., np.ndarray], operands: Sequence[Node]) -> None:
        self.ends = np.cumsum([0, *(x.size for x in operands)])
        shapes = [x.shape for x in operands]
        spans = list(zip(self.ends, self.ends[1:], shapes, strict=False))
        self.map = Map(lambda: f(*(np.arange(start, end).reshape(shape) for start, end, shape in spans)), self.ends[-1])

    def moves(self, node: Node, moved: Sequence[Places]) -> Places:
        """Return the entries that are moved from one that moves."""
        return self.map.forth(np.concatenate([m + start for m, start in zip(moved, self.ends, strict=False)]))

    def needs(self, node: Node, values: Places, changes: Places, moved: Sequence[Places]) -> Needed:
        """Return the sources."""
        sources = [distinct(self.map.back(at)) for at in (values, changes)]
        return [tuple(s[self._of(i, s)] - self.ends[i] for s in sources) for i in range(len(moved))]  # type: ignore

    def _of(self, i: int, sources: np.ndarray) -> slice | np.ndarray:
        if len(self.ends) == 2:
            return slice(None)
        return (sources >= self.ends[i]) & (sources < self.ends[i + 1])

    def evaluate(self, node: Node, at: Places, fetch: Fetch) -> np.ndarray:
        """Return the sources."""
        sources = self.map.back(at)
        if len(self.ends) == 2:
            return fetch(0, sources)
        out = full(at.shape)
        for i in range(len(node.operands)):
            chosen = self._of(i, sources)
            out[chosen] = fetch(i, sources[chosen] - self.ends[i])
        return out


class AddUp(NodeOperation):
    """Sums of entries at flat positions; −1 drops one."""

    weight = SUMMED

    def __init__(self, ids: np.ndarray, size: int) -> None:
        self.map = Map(lambda: ids, size)

    def moves(self, node: Node, moved: Sequence[Places]) -> Places:
        """Return the sums with a term that moves."""
        found = distinct(self.map.back(moved[0]))
        return found[found >= 0]

    def needs(self, node: Node, values: Places, changes: Places, moved: Sequence[Places]) -> Needed:
        """Return all terms, of sums of which only the change matters those that move."""
        sums = self.map.back(moved[0])
        return [(self.map.forth(values), moved[0][within(changes, sums)])]

    def evaluate(self, node: Node, at: Places, fetch: Fetch) -> np.ndarray:
        """Return the sums of the terms that are needed."""
        terms = fetch.needed(0)
        sums = self.map.back(terms)
        added = within(at, sums)
        out = full(at.shape)
        np.add.at(out, np.searchsorted(at, sums[added]), fetch(0, terms[added]))
        return out


class Product(NodeOperation):
    """Products of stacks of matrices (…, m, k) · (…, k, n)."""

    def __init__(self, operands: Sequence[Node]) -> None:
        (*self.batch, self.m, self.k), self.n = operands[0].shape, operands[1].shape[-1]

    def weighed(self, needed: Callable[[int], Places]) -> float:
        """Return the number of terms that are not 0, and what it takes to hand them to flint."""
        common = self._common(needed)
        return common.size / max(1, distinct(common // self.k).size) + 2 * SUMMED

    def _common(self, needed: Callable[[int], Places]) -> np.ndarray:
        """Return the terms whose two factors are both needed."""
        left, right = (self._terms(i, needed(i)) for i in (0, 1))
        return np.intersect1d(left, right)

    def _parts(self, at: Places) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (matrix, row, column) of each entry."""
        matrix, rest = np.divmod(at, self.m * self.n)
        return matrix, *np.divmod(rest, self.n)

    def _rows(self, rows: np.ndarray, terms: np.ndarray) -> np.ndarray:
        """Return the entries of rows of the left factors, counted through all of them."""
        return rows[:, None] * self.k + terms

    def _columns(self, columns: np.ndarray, terms: np.ndarray) -> np.ndarray:
        """Return the entries of columns of the right factors, counted through all of them."""
        matrix, column = np.divmod(columns[:, None], self.n)
        return (matrix * self.k + terms) * self.n + column

    def moves(self, node: Node, moved: Sequence[Places]) -> Places:
        """Return the rows and columns of the entries that move."""
        rows = distinct(moved[0] // self.k)
        columns = distinct(moved[1] // (self.k * self.n) * self.n + moved[1] % self.n)
        by_row = (rows[:, None] * self.n + np.arange(self.n)).ravel()
        matrix, column = np.divmod(columns, self.n)
        by_column = np.sort(((matrix[:, None] * self.m + np.arange(self.m)) * self.n + column[:, None]).ravel())
        return union(by_row, by_column)

    def needs(self, node: Node, values: Places, changes: Places, moved: Sequence[Places]) -> Needed:
        """Return rows and columns; where one factor stands still, only those of its entries that meet what moves."""
        if moved[0].size and moved[1].size:
            values, changes = union(values, changes), NOWHERE
        left, right = self._both(values)
        found = [(distinct(left.ravel()), NOWHERE), (distinct(right.ravel()), NOWHERE)]
        if changes.size:
            left, right = self._both(changes)
            i = 0 if moved[0].size else 1
            moving, still = (left, right) if i == 0 else (right, left)
            moving = moving[within(moved[i], moving)]
            terms, others = (self._terms(j, x) for j, x in ((i, moving), (1 - i, still)))
            still = still[within(distinct(terms), others)]
            found[i] = found[i][0], distinct(moving)
            found[1 - i] = union(found[1 - i][0], distinct(still)), NOWHERE
        return found

    def _both(self, at: Places) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows and columns that some entries need."""
        matrix, row, column = self._parts(at)
        rows, columns = distinct(matrix * self.m + row), distinct(matrix * self.n + column)
        every = np.arange(self.k)
        return self._rows(rows, every), self._columns(columns, every)

    def _terms(self, i: int, at: np.ndarray) -> np.ndarray:
        """Return (matrix, index of the sum), as one number, of entries of a factor."""
        if i == 1:
            return at // self.n
        return at // (self.m * self.k) * self.k + at % self.k

    def evaluate(self, node: Node, at: Places, fetch: Fetch) -> np.ndarray:
        """Return entries of the products of the rows and columns that they need, matrix by matrix."""
        out = full(at.shape)
        matrix, row, column = self._parts(at)
        common = self._common(fetch.needed)
        for b in distinct(matrix):
            here = matrix == b
            rows, row_of = np.unique(row[here], return_inverse=True)
            columns, column_of = np.unique(column[here], return_inverse=True)
            terms = common[common // self.k == b] % self.k
            left = fetch(0, self._rows(b * self.m + rows, terms).ravel()).reshape(len(rows), -1)
            right = fetch(1, self._columns(b * self.n + columns, terms).ravel()).reshape(len(columns), -1)
            out[here] = matmul(Array(left), Array(right.T)).data[row_of, column_of]
        return out


class Chosen(NodeOperation):
    """Entries of each row that a comparison chooses: `decide(keys' rows)` → (ids, …, reasons of lost rows)."""

    def __init__(self, decide: Callable[..., tuple], operands: Sequence[Node], chosen: int) -> None:
        self.decide, self.chosen = decide, chosen
        self.lengths = [x.shape[1] for x in operands]
        self.weight = COMPARED * self.lengths[0] / max(1, chosen)

    def moves(self, node: Node, moved: Sequence[Places]) -> Places:
        """Return the rows with an entry that moves."""
        rows = functools.reduce(union, (distinct(m // n) for m, n in zip(moved, self.lengths, strict=True)), NOWHERE)
        return _entries(rows, self.chosen)

    def needs(self, node: Node, values: Places, changes: Places, moved: Sequence[Places]) -> Needed:
        """Return the whole rows."""
        rows = distinct(union(values, changes) // self.chosen)
        return [(_entries(rows, n), NOWHERE) for n in self.lengths]

    def evaluate(self, node: Node, at: Places, fetch: Fetch) -> np.ndarray:
        """Return what is chosen from the rows, undecided in a row that is lost."""
        rows, row_of = np.unique(at // self.chosen, return_inverse=True)
        data, *keys = (fetch(i, _entries(rows, n)).reshape(len(rows), n) for i, n in enumerate(self.lengths))
        try:
            ids, _, lost = self.decide(*keys)
        except NotDecided as trouble:
            return full(at.shape, Undecided(trouble.why))
        out = data[np.arange(len(rows))[:, None], ids]
        for r, why in (lost or {}).items():
            out[r] = Undecided(why)
        return out[row_of, at % self.chosen]


def _entries(rows: np.ndarray, n: int) -> Places:
    return (rows[:, None] * n + np.arange(n)).ravel()


class Whole(NodeOperation):
    """Result j of an equation that is evaluated on all entries."""

    def __init__(self, eqn: JaxprEqn, values: Sequence[Any], j: int, count: int) -> None:
        self.eqn, self.values, self.j = eqn, values, j
        self.weight = operations_within(eqn) / max(1, count)

    def moves(self, node: Node, moved: Sequence[Places]) -> Places:
        """Return everything."""
        return np.arange(node.size)

    def needs(self, node: Node, values: Places, changes: Places, moved: Sequence[Places]) -> Needed:
        """Return everything."""
        return [(np.arange(x.size), NOWHERE) for x in node.operands]

    def evaluate(self, node: Node, at: Places, fetch: Fetch) -> np.ndarray:
        """Return entries of the result."""
        operands = iter([fetch(i, np.arange(x.size)).reshape(x.shape) for i, x in enumerate(node.operands)])
        values = [_whole(x, next(operands)) if isinstance(x, Node) else x for x in self.values]
        return fetch.whole(self.eqn, values, self.j, at)


def _whole(node: Node, data: np.ndarray) -> Any:
    return data if isinstance(node, Numbers) else Array(data)
