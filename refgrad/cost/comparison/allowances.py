"""The growth that each figure may have: `flops=1%,bytes=0`."""

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

from refgrad._text import nearest
from refgrad.cost.comparison.items import FIGURES, Figures

Given = str | Mapping[str, str | int] | None
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)(%?)")


class Allowance(NamedTuple):
    """The growth that one figure may have: a number, or a share of the earlier program's."""

    amount: Fraction
    is_share: bool

    def of(self, before: int) -> int:
        """Return the largest growth allowed."""
        return int(self.amount * before / 100) if self.is_share else int(self.amount)


def parse(given: Given) -> dict[str, Allowance]:
    """Return the allowance of each figure that is named; every other figure may not grow.

    Raises ValueError for an unknown figure and for an allowance that is neither a number nor a percentage.
    """
    if given is None:
        return {}
    pairs = given.items() if isinstance(given, Mapping) else (_pair(piece) for piece in given.split(",") if piece)
    return {_figure(name): _allowance(name, str(value).strip()) for name, value in pairs}


def exceeded(before: Figures, after: Figures, allowed: Mapping[str, Allowance]) -> list[str]:
    """Return the figures that grow by more than is allowed."""
    grown = []
    for name, a, b in zip(FIGURES, before, after, strict=True):
        if b - a > (allowed[name].of(a) if name in allowed else 0):
            grown.append(name)
    return grown


def _pair(piece: str) -> tuple[str, str]:
    name, equals, value = piece.partition("=")
    if not equals:
        raise ValueError(f"allow: {piece!r} must be figure=number or figure=percentage, such as flops=1%")
    return name.strip(), value


def _figure(name: str) -> str:
    if name not in FIGURES:
        raise ValueError(f"allow: {name!r} is not a figure: {nearest(str(name), FIGURES)}")
    return name


def _allowance(name: str, value: str) -> Allowance:
    found = _NUMBER.fullmatch(value)
    if found is None:
        raise ValueError(f"allow: {name}={value} must be a number of at least 0 or a percentage, such as 1024 or 1%")
    return Allowance(Fraction(found.group(1)), bool(found.group(2)))
