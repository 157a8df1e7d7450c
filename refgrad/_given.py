"""`argnums=` and `kwargs=`, with one meaning and one error message in every instrument."""

from collections.abc import Mapping, Sequence
from typing import Any


def positions(argnums: int | Sequence[int] | None, count: int) -> set[int] | None:
    """Return the positions to differentiate out of `count` positional arguments; None for all.

    Raises ValueError for a position that does not exist.
    """
    if argnums is None:
        return None
    given = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for i in given:
        if not isinstance(i, int) or isinstance(i, bool) or not -count <= i < count:
            raise ValueError(
                f"argnums holds {i!r}, but there are {count} positional arguments: choose from {-count} to {count - 1}"
            )
    return {i % count for i in given}


def keywords(kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the keyword arguments as a dict.

    Raises TypeError for anything but a mapping from names to values.
    """
    if kwargs is None:
        return {}
    if not isinstance(kwargs, Mapping) or not all(isinstance(name, str) for name in kwargs):
        raise TypeError(f"kwargs={kwargs!r:.80}: give a mapping from the names of arguments to their values")
    return dict(kwargs)
