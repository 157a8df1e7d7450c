"""One entry judged on its dependences: the outputs that it reaches, and their needs.

Entries that stand still are evaluated once and kept for other slices; those that move, once for each direction.
"""

import functools
import heapq
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, JaxprEqn

from refgrad.jaxpr.avals import dtype_of, shape_of, size
from refgrad.jaxpr.calls import Form, bodies_of
from refgrad.verify.exact.arrays import Array, NotDecided, Unknown, full
from refgrad.verify.exact.evaluate import Evaluator, lift
from refgrad.verify.exact.graph.graph import Graph
from refgrad.verify.exact.graph.nodes import Needs, Node, Numbers
from refgrad.verify.exact.graph.operations import Leaf, Source, Whole
from refgrad.verify.exact.graph.places import NOWHERE, Places, union, within
from refgrad.verify.exact.scalars.germ import Undecided

NODE = 3000  # the operations of finding what one node needs, whatever its size
JUDGED = 25  # evaluations on balls that judging an entry takes: one, and two on germs
Entries = tuple[Places, np.ndarray]


class GraphRecorder(Evaluator):
    """Interpreter on nodes of a graph: an equation whose rule reads values becomes one node for each result."""

    def __init__(self, graph: Graph, casts: Collection[str], stop_gradient: bool) -> None:
        super().__init__(casts, stop_gradient=stop_gradient)
        self.graph = graph

    def constant(self, value: Any, aval: Any) -> Any:
        """Return floats as a node, anything else at its value."""
        if not jnp.issubdtype(getattr(value, "dtype", np.float64), np.inexact):
            return super().constant(value, aval)
        return source(self.graph, value)

    def equation(self, eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
        """Return the results of one equation as nodes, as far as they are not known."""
        bodies = bodies_of(eqn)
        try:
            numbers = any(isinstance(x, Numbers) for x in values)
            if (numbers and (bodies is None or bodies.form is not Form.CALL)) or (
                bodies is not None and bodies.form is Form.SOLVE
            ):
                raise Unknown
            return super().equation(eqn, values)
        except Unknown:
            return self._whole(eqn, values)

    def _whole(self, eqn: JaxprEqn, values: Sequence[Any]) -> list[Any]:
        values = [self.graph.node(x) if isinstance(x, Array) else x for x in values]
        operands = [x for x in values if isinstance(x, Node)]
        made = sum(size(v) for v in eqn.outvars)
        found = []
        for j, v in enumerate(eqn.outvars):
            scalars = jnp.issubdtype(dtype_of(v), np.inexact) or dtype_of(v) == np.bool_
            kind = Node if scalars else Numbers
            found.append(self.graph.add(Whole(eqn, values, j, made), shape_of(v), operands, kind))
        return found


def source(graph: Graph, value: Any) -> Node:
    """Return an array of floats as a node, whose entries are lifted where they are needed."""
    flat = np.asarray(value)
    shape, flat = flat.shape, flat.ravel()
    return graph.add(Source(lambda at: lift(flat[at]).data), shape)


class Sliced:
    """A program as a graph: `leaves` and `outputs` are its nodes."""

    def __init__(
        self, program: ClosedJaxpr, rest: Sequence[Any], count: int, casts: Collection[str], stop_gradient: bool
    ) -> None:
        self.graph, self.casts, self.stop_gradient = Graph(), casts, stop_gradient
        avals = program.in_avals[: len(program.in_avals) - len(rest)]
        self.leaves = [self.graph.add(Leaf(i), aval.shape) for i, aval in enumerate(avals)]
        recorder = GraphRecorder(self.graph, casts, stop_gradient)
        outputs = recorder.run(program, [*self.leaves, *(recorder.constant(x, None) for x in rest)])
        self.outputs = [self.graph.node(y) for y in outputs[:count]]


class Slice:
    """The part of a program that one entry of an argument reaches, and its needs; `cost` estimates its operations."""

    def __init__(self, program: Sliced, leaf: int, index: tuple[int, ...], wanted: Sequence[Places | None]) -> None:
        self.program, self.nodes = program, program.graph.nodes
        start = program.leaves[leaf]
        self.entry = start.id, int(np.ravel_multi_index(index, start.shape)) if index else 0
        self.moved = self._moved()
        self.reached = [
            m if w is None else m[within(w, m)]
            for m, w in ((self.moved.get(y.id, NOWHERE), w) for y, w in zip(program.outputs, wanted, strict=True))
        ]
        self.needs = self._needed()
        self.order = sorted(self.needs)
        self.moving: dict[int, Places] = {}
        self.still: dict[int, Places] = {}
        self.cost = 0.0
        self._settled: Values | None = None
        self._memory: list = []
        for k in self.order:
            need, moved = self.needs[k], self.moved.get(k, NOWHERE)
            at = union(need.values, need.changes)
            moves = within(moved, at)
            self.moving[k], self.still[k] = at[moves], at[~moves]
            work = len(self.still[k]) + JUDGED * len(self.moving[k])
            self.cost += self.nodes[k].operation.weighed(functools.partial(self.needed, k)) * work + NODE

    def needed(self, k: int, i: int) -> Places:
        """Return the entries of operand i of a node that are needed."""
        found = self.needs.get(self.nodes[k].operands[i].id)
        return NOWHERE if found is None else union(found.values, found.changes)

    def _moved(self) -> dict[int, Places]:
        first, at = self.entry
        moved, waiting, seen = {first: np.array([at])}, list(self.nodes[first].readers), set()
        heapq.heapify(waiting)
        while waiting:
            k = heapq.heappop(waiting)
            if k in seen:
                continue
            seen.add(k)
            node = self.nodes[k]
            found = node.operation.moves(node, [moved.get(x.id, NOWHERE) for x in node.operands])
            if found.size:
                moved[k] = found
                for reader in node.readers:
                    heapq.heappush(waiting, reader)
        return moved

    def _needed(self) -> dict[int, Needs]:
        needs: dict[int, Needs] = {}
        waiting: list[int] = []

        def need(k: int, values: Places, changes: Places) -> None:
            if values.size or changes.size:
                if k not in needs:
                    needs[k] = Needs()
                    heapq.heappush(waiting, -k)
                needs[k].join(values, changes)

        for y, at in zip(self.program.outputs, self.reached, strict=True):
            need(y.id, NOWHERE, at)
        while waiting:
            node = self.nodes[-heapq.heappop(waiting)]
            found = needs[node.id]
            moved = [self.moved.get(x.id, NOWHERE) for x in node.operands]
            wanted = node.operation.needs(node, found.values, found.changes, moved)
            for x, (values, changes) in zip(node.operands, wanted, strict=True):
                need(x.id, values, changes)
        return needs

    def run(self, values: "Values", scalar: Any) -> list[np.ndarray]:
        """Return the outputs that the entry reaches, with a scalar in its place."""
        if self._settled is not values:
            values.settle(self)
            self._settled, self._memory = values, []
        return SliceRun(self, values, scalar, self._memory).outputs()


class Values:
    """Entries that do not move, at one precision: those that one slice evaluates, the next one finds."""

    def __init__(self, inputs: Callable[[int, np.ndarray], np.ndarray], most: float) -> None:
        self.inputs, self.most = inputs, most
        self.spent = 0.0  # operations of the equations that were evaluated whole
        self.entries: dict[int, Entries] = {}

    def settle(self, part: Slice) -> None:
        """Evaluate the entries that a slice needs and that are not known yet."""
        for k in part.order:
            known, data = self.entries.get(k, (NOWHERE, full((0,))))
            at = part.still[k]
            missing = at[~within(known, at)]
            if missing.size:
                node = part.nodes[k]
                made = node.operation.evaluate(node, missing, SliceRun(part, self, None, None).reading(node))
                places = np.concatenate([known, missing])
                order = np.argsort(places, kind="stable")
                self.entries[k] = places[order], np.concatenate([data, made])[order]


class SliceRun:
    """One evaluation of the entries of a slice that move.

    `memory` holds where each entry that is read comes from: the same for each run of a slice.
    """

    def __init__(self, part: Slice, values: Values, scalar: Any, memory: list | None) -> None:
        self.part, self.values, self.scalar = part, values, scalar
        self.memory, self.reads = memory, 0
        self.moving: dict[int, np.ndarray] = {}
        self.results: dict[tuple[int, ...], list[np.ndarray]] = {}

    def outputs(self) -> list[np.ndarray]:
        """Return the outputs that the entry reaches."""
        part = self.part
        for k in part.order:
            at = part.moving[k]
            if k == part.entry[0]:
                self.moving[k] = full(at.shape, self.scalar)
            elif at.size:
                node = part.nodes[k]
                self.moving[k] = node.operation.evaluate(node, at, self.reading(node))
        return [self._read(y.id, at) for y, at in zip(part.program.outputs, part.reached, strict=True)]

    def reading(self, node: Node) -> "Reading":
        """Return what reads the operands of a node."""
        return Reading(self, node)

    def _read(self, k: int, at: np.ndarray) -> np.ndarray:
        if self.memory is None or self.reads == len(self.memory):
            prepared = self._prepare(k, at)
            if self.memory is not None:
                self.memory.append(prepared)
        else:
            prepared = self.memory[self.reads]
        self.reads += 1
        template, hits, sources = prepared
        if hits is None:
            return template
        out = template.copy()
        out[hits] = self.moving[k][sources]
        return out

    def _prepare(self, k: int, at: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        template = full(at.shape)
        places, data = self.values.entries.get(k, (NOWHERE, template))
        found = within(places, at)
        template[found] = data[np.searchsorted(places, at[found])]
        moving = self.part.moving.get(k, NOWHERE)
        hits = within(moving, at) if self.memory is not None else np.zeros(at.shape, bool)
        return template, hits if hits.any() else None, np.searchsorted(moving, at[hits])


class Reading:
    """The operands of one node, as `Operation.evaluate` reads them."""

    def __init__(self, run: SliceRun, node: Node) -> None:
        self.run, self.node = run, node

    def __call__(self, i: int, at: np.ndarray) -> np.ndarray:
        """Return entries of an operand, 0 for what is not needed."""
        return self.run._read(self.node.operands[i].id, at)

    def needed(self, i: int) -> Places:
        """Return the entries of an operand that are needed."""
        return self.run.part.needed(self.node.id, i)

    def inputs(self, number: int, at: np.ndarray) -> np.ndarray:
        """Return entries of an argument."""
        return self.run.values.inputs(number, at)

    def whole(self, eqn: JaxprEqn, values: Sequence[Any], j: int, at: Places) -> np.ndarray:
        """Return entries of result j of an equation; its results are made once in a run."""
        key = id(eqn), *(id(v) for v in self.node.operands)
        if key not in self.run.results:
            self.run.results[key] = self._whole(eqn, values)
        return self.run.results[key][j][at]

    def _whole(self, eqn: JaxprEqn, values: Sequence[Any]) -> list[np.ndarray]:
        program, shared = self.run.part.program, self.run.values
        evaluator = Evaluator(program.casts, shared.most, program.stop_gradient)
        try:
            numbers = [_numbers(x, v) for x, v in zip(values, eqn.invars, strict=True)]
            with eqn.ctx.manager:
                made = evaluator.equation(eqn, numbers)
            return [(x.data if isinstance(x, Array) else np.asarray(x).astype(object)).ravel() for x in made]
        except NotDecided as trouble:
            return [full((size(v),), Undecided(trouble.why)) for v in eqn.outvars]
        finally:
            shared.spent += evaluator.budget.spent


def _numbers(value: Any, variable: Any) -> Any:
    """Return integers that were kept as objects as NumPy's. Raises NotDecided where one is not known."""
    if not isinstance(value, np.ndarray) or value.dtype != object:
        return value
    for x in value.ravel():
        if isinstance(x, Undecided):
            raise NotDecided(x.why)
    return value.astype(dtype_of(variable))
