"""The nodes of a graph, and the questions that each operation of a node answers."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from jax.extend.core import JaxprEqn

from refgrad.verify.exact.arrays import Deferred
from refgrad.verify.exact.graph.places import NOWHERE, Places, union

if TYPE_CHECKING:
    from refgrad.verify.exact.graph.graph import Graph


Needed = list[tuple[Places, Places]]  # of each operand, entries whose value and entries whose change is needed


class Node(Deferred):
    """The result of an operation."""

    __slots__ = ("id", "operands", "operation", "readers")

    def __init__(
        self, graph: "Graph", shape: Sequence[int], operation: "NodeOperation", operands: Sequence["Node"]
    ) -> None:
        super().__init__(graph, tuple(shape))
        self.operation, self.operands, self.readers = operation, tuple(operands), []
        self.id = len(graph.nodes)

    @property
    def size(self) -> int:
        """The number of entries."""
        return math.prod(self.shape)


class Numbers(Node):
    """Integers that depend on arguments: only an equation that is evaluated whole reads them."""

    __slots__ = ("dtype",)
    dtype: np.dtype


class Needs:
    """Entries of an operand that results need: their values, or only by how much they move."""

    def __init__(self, values: Places = NOWHERE, changes: Places = NOWHERE) -> None:
        self.values, self.changes = values, changes

    def join(self, values: Places, changes: Places) -> None:
        """Add entries."""
        self.values, self.changes = union(self.values, values), union(self.changes, changes)


class Fetch(Protocol):
    """Entries of the operands of a node."""

    def __call__(self, i: int, at: np.ndarray) -> np.ndarray:
        """Return entries of operand i, 0 for what is not needed."""
        ...

    def needed(self, i: int) -> Places:
        """Return the entries of operand i that are needed."""
        ...

    def inputs(self, number: int, at: np.ndarray) -> np.ndarray:
        """Return entries of an argument."""
        ...

    def whole(self, eqn: JaxprEqn, values: Sequence[Any], j: int, at: Places) -> np.ndarray:
        """Return entries of result j of an equation."""
        ...


class NodeOperation:
    """An operation that makes a node of its operands; `weight` estimates the operations of one entry."""

    weight: float = 0.0

    def weighed(self, needed: Callable[[int], Places]) -> float:
        """Return the operations of one entry, given the entries of each operand that are needed."""
        del needed
        return self.weight

    def moves(self, node: Node, moved: Sequence[Places]) -> Places:
        """Return the results that move, given the entries of each operand that do."""
        raise NotImplementedError

    def needs(self, node: Node, values: Places, changes: Places, moved: Sequence[Places]) -> Needed:
        """Return the entries of each operand that some results need: (values, changes)."""
        raise NotImplementedError

    def evaluate(self, node: Node, at: Places, fetch: Fetch) -> np.ndarray:
        """Return some results, given `fetch(operand, its flat positions)`: 0 for what is not needed."""
        raise NotImplementedError
