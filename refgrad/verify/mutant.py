"""One wrong version of a rule."""

from typing import Any, NamedTuple


class Mutant(NamedTuple):
    """One wrong version: `name` as in "w: negated", and the function, called as the original is."""

    name: str
    function: Any
    property: str = "accuracy"  # the one that is to catch it
