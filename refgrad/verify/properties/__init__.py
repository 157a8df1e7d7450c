"""Properties that are checked, by name: each is a function from a `FunctionCase` to rows."""

from collections.abc import Callable, Iterator

from refgrad.verify.case import FunctionCase
from refgrad.verify.properties.accuracy import accuracy
from refgrad.verify.properties.jacobian import jacobian, parts
from refgrad.verify.properties.linearity import linearity, repeat
from refgrad.verify.properties.methods import METHODS
from refgrad.verify.properties.second_order import second_order
from refgrad.verify.properties.sharding import shard_map
from refgrad.verify.properties.structure import structure
from refgrad.verify.properties.transforms import checkpoint, eager, scan, vmap
from refgrad.verify.report import Row

# The most telling first: a budget of seconds may end the list anywhere.
PROPERTIES: dict[str, Callable[[FunctionCase], Iterator[Row]]] = {
    "structure": structure,
    "accuracy": accuracy,
    "jacobian": jacobian,
    "linearity": linearity,
    "parts": parts,
    "eager": eager,
    "vmap": vmap,
    "second_order": second_order,
    "scan": scan,
    "checkpoint": checkpoint,
    "repeat": repeat,
    "shard_map": shard_map,
    **METHODS,
}
EAGERLY = ("structure", "accuracy", "linearity", "repeat")  # those of a rule that only runs without jit
