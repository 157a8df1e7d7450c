"""What is checked, by name: each property is a function from a `Case` to rows."""

from collections.abc import Callable, Iterator

from refgrad.verify.case import Case
from refgrad.verify.properties.accuracy import accuracy
from refgrad.verify.properties.structure import structure
from refgrad.verify.report import Row

PROPERTIES: dict[str, Callable[[Case], Iterator[Row]]] = {
    "structure": structure,
    "accuracy": accuracy,
}
