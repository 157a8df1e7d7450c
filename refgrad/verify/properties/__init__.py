"""What is checked, by name: each property is a function from a `Case` to rows."""

from collections.abc import Callable, Iterator

from refgrad.verify.case import Case
from refgrad.verify.properties.accuracy import accuracy
from refgrad.verify.properties.jacobian import jacobian, parts
from refgrad.verify.properties.linearity import linearity, repeat
from refgrad.verify.properties.methods import METHODS
from refgrad.verify.properties.second_order import second_order
from refgrad.verify.properties.sharding import shard_map
from refgrad.verify.properties.structure import structure
from refgrad.verify.properties.transforms import checkpoint, eager, scan, vmap
from refgrad.verify.report import Row

PROPERTIES: dict[str, Callable[[Case], Iterator[Row]]] = {
    "structure": structure,
    "accuracy": accuracy,
    "jacobian": jacobian,
    "parts": parts,
    "linearity": linearity,
    "repeat": repeat,
    "eager": eager,
    "vmap": vmap,
    "scan": scan,
    "checkpoint": checkpoint,
    "shard_map": shard_map,
    "second_order": second_order,
    **METHODS,
}
