"""Checked settings: frozen dataclasses whose fields carry their bounds.

    @dataclass(frozen=True)
    class Section(Checked):
        steps: int = number(100, least=1)
        rules: str = one_of("fused", ("fused", "derived"))

A wrong type raises TypeError and a value out of bounds ValueError. Both name `section.key`, the value and the bound.
"""

import contextlib
import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self, get_type_hints

from refgrad._text import nearest


def number(default: Any, least: float | None = None, above: float | None = None, below: float | None = None) -> Any:
    """Return a field for a number within the bounds that are given.

    A field annotated `int` takes integers alone, of 32 bits unless `below` says otherwise.

    Args:
        default: The field's default value.
        least: The least value, itself allowed.
        above: A value that the number must exceed.
        below: A value that the number must stay under.
    """
    return dataclasses.field(default=default, metadata={"least": least, "above": above, "below": below})


def one_of(default: str, names: Sequence[str], renamed: Mapping[str, str] | None = None) -> Any:
    """Return a field for one of these names; `renamed` maps old names to theirs."""
    return dataclasses.field(default=default, metadata={"names": names, "renamed": renamed or {}})


@dataclasses.dataclass(frozen=True)
class Checked:
    """A section that checks its fields against their bounds when it is made."""

    section: ClassVar[str]

    def __post_init__(self) -> None:
        types = get_type_hints(type(self))
        for field in dataclasses.fields(self):
            check(f"{self.section}.{field.name}", getattr(self, field.name), types[field.name], field.metadata)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Return the section with these values, such as TOML's, and defaults for the rest.

        Raises:
            TypeError: A value has the wrong type.
            ValueError: A value is out of bounds, or a key is unknown; the message names the nearest known key.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for key, value in values.items():
            if key not in known:
                raise ValueError(f"{cls.section}.{key} = {value!r} is not a setting: {nearest(key, known)}")
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


@contextlib.contextmanager
def errors_of(section: str) -> Iterator[None]:
    """Prefix messages of TypeError and ValueError, which name a key alone, with `section.`."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"{section}.{error}") from None


def check(name: str, value: Any, kind: Any, bounds: Mapping[str, Any]) -> None:
    """Raise TypeError or ValueError unless the value has this type and lies within these bounds.

    Args:
        name: The name that messages give the value.
        value: The value.
        kind: Its type: int, float, bool, str or `tuple[str, ...]`.
        bounds: Any of "names", "least", "above" and "below", as the fields' metadata.
    """
    if kind == tuple[str, ...]:
        if not isinstance(value, tuple) or not all(isinstance(text, str) for text in value):
            example = value if isinstance(value, str) else "a/folder"
            raise TypeError(f"{name} is {value!r}, but must be a list of texts: write {name}={json.dumps([example])}")
        return
    allowed = (int, float) if kind is float else (kind,)
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        words = {int: "an integer", float: "a number", bool: "true or false", str: "a text in quotes"}
        raise TypeError(f"{name} is {value!r}, but must be {words[kind]}")
    if new := bounds.get("renamed", {}).get(value):
        raise ValueError(f"{name} is {value!r}, which is now called {new!r}: write {name} = {new!r}")
    if (names := bounds.get("names")) and value not in names:
        raise ValueError(f"{name} is {value!r}, but must be one of {', '.join(map(repr, names))}")
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{name} is {value}, but must be finite")
    least, above, below = (bounds.get(key) for key in ("least", "above", "below"))
    if kind is int and below is None:
        below = 2**31
    for bound, holds, words in (
        (least, least is None or value >= least, "at least"),
        (above, above is None or value > above, "above"),
        (below, below is None or value < below, "below"),
    ):
        if not holds:
            raise ValueError(f"{name} is {value}, but must be {words} {bound}")
