"""A program as a graph of the few operations that all rules are made of.

A `Graph` is recorded by running the rules on arrays that are known by their shapes alone. Each operation tells which of
its results move with some entries of its operands, which entries of its operands some of its results need, and the
values of those results alone. Of a sum, and of what is linear up to the outputs, only what moves is needed: the rest
adds a constant.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from refgrad.verify.exact.arrays import Array
from refgrad.verify.exact.graph.nodes import Node, NodeOperation
from refgrad.verify.exact.graph.operations import AddUp, Chosen, Each, Move, Product, Source
from refgrad.verify.exact.scalars.functions import Function

MOST_NODES = 20_000


class NotSliceable(Exception):
    """A program of too many operations."""


class Graph:
    """Nodes in the order in which they are made."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def add(
        self, operation: NodeOperation, shape: Sequence[int], operands: Sequence[Node] = (), kind: type[Node] = Node
    ) -> Node:
        """Return a new node. Raises NotSliceable where there are too many."""
        if len(self.nodes) >= MOST_NODES:
            raise NotSliceable
        node = kind(self, shape, operation, operands)
        self.nodes.append(node)
        for x in operands:
            x.readers.append(node.id)
        return node

    def node(self, x: Any) -> Node:
        """Return an array as a node."""
        if isinstance(x, Node):
            return x
        data = x.data if isinstance(x, Array) else np.asarray(x).astype(object)
        flat = np.broadcast_to(data, data.shape or (1,)).ravel()
        return self.add(Source(lambda at: flat[at]), data.shape)

    def elementwise(self, f: Function, *xs: Any) -> Node:
        """Record a function of each entry."""
        operands = [self.node(x) for x in xs]
        shape = np.broadcast_shapes(*(x.shape for x in operands))
        return self.add(Each(f, shape, operands), shape, operands)

    def move(self, f: Callable[..., np.ndarray], *xs: Any) -> Node:
        """Record a movement."""
        operands = [self.node(x) for x in xs]
        shape = np.shape(f(*(np.broadcast_to(np.int8(0), x.shape) for x in operands)))
        return self.add(Move(f, operands), shape, operands)

    def add_up(self, x: Any, ids: np.ndarray, shape: tuple[int, ...]) -> Node:
        """Record sums."""
        return self.add(AddUp(ids, math.prod(shape)), shape, [self.node(x)])

    def matmul(self, a: Any, b: Any) -> Node:
        """Record products of matrices."""
        operands = [self.node(a), self.node(b)]
        return self.add(Product(operands), (*operands[0].shape[:-1], operands[1].shape[-1]), operands)

    def choose(self, decide: Callable[..., tuple], count: int, keys: Sequence[Any], xs: Sequence[Any]) -> list[Node]:
        """Record entries that a comparison chooses, `count` from each row."""
        found = []
        for x in xs:
            operands = [self.node(x), *map(self.node, keys)]
            found.append(self.add(Chosen(decide, operands, count), (x.shape[0], count), operands))
        return found
