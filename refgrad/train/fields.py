"""Settings that say of each key what it may be: frozen dataclasses whose fields carry their bounds.

    @dataclass(frozen=True)
    class Section(Checked):
        steps: int = number(100, least=1)
        rules: str = one_of("fused", ("fused", "derived"))

A wrong type raises TypeError, a value out of bounds ValueError, each naming `section.key`, the value and the bound.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self, get_type_hints

from refgrad._text import nearest


def number(default: Any, least: float | None = None, above: float | None = None, below: float | None = None) -> Any:
    """A field for a number: at least, above and below what is given; an integer field takes integers alone, of 32 bits
    unless `below` says otherwise."""
    return dataclasses.field(default=default, metadata={"least": least, "above": above, "below": below})


def one_of(default: str, names: Sequence[str], renamed: Mapping[str, str] | None = None) -> Any:
    """A field for one of these names; `renamed` maps old names to theirs."""
    return dataclasses.field(default=default, metadata={"names": names, "renamed": renamed or {}})


@dataclasses.dataclass(frozen=True)
class Checked:
    """A section whose fields are held against their own bounds when it is made."""

    section: ClassVar[str]

    def __post_init__(self) -> None:
        types = get_type_hints(type(self))
        for field in dataclasses.fields(self):
            check(f"{self.section}.{field.name}", getattr(self, field.name), types[field.name], field.metadata)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """The section with these values, such as TOML's, the rest as by default.

        Raises ValueError for a key that it does not have, naming the nearest, and as its fields do.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for key, value in values.items():
            if key not in known:
                raise ValueError(f"{cls.section}.{key} = {value!r} is no setting: {nearest(key, known)}")
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def check(name: str, value: Any, kind: Any, bounds: Mapping[str, Any]) -> None:
    """Hold one value against its type and its bounds. Raises TypeError or ValueError."""
    if kind == tuple[str, ...]:
        if not isinstance(value, tuple) or not all(isinstance(one, str) for one in value):
            one = value if isinstance(value, str) else "a/folder"
            raise TypeError(f"{name} is {value!r}, but must be a list of texts: write {name}={json.dumps([one])}")
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
