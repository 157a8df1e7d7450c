"""Plain text: tables, the one way in which reports print, and hints for a misspelt name."""

import difflib
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Table(NamedTuple):
    """A header and rows of cells, which print as `table` sets them and which a page can show in its own way."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        return table(*self)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns padded to their widest cell: the first to the left, numbers to the right.

    Raises ValueError where a row has another length than the header.
    """
    cells = [list(map(str, header)), *(list(map(str, row)) for row in rows)]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    right = [numeric(column[1:]) for column in zip(*cells, strict=True)]

    def line(row: Sequence[str]) -> str:
        blanks = (" " * (w - _width(c)) for c, w in zip(row, widths, strict=True))
        return "  ".join(space + c if r else c + space for c, space, r in zip(row, blanks, right, strict=True)).rstrip()

    return "\n".join([line(cells[0]), line(["─" * w for w in widths]), *map(line, cells[1:])])


def numeric(cells: Sequence[object]) -> bool:
    """Whether a column holds numbers, which stand to the right; gaps do not matter."""
    return bool(cells) and all(str(c)[:1] in ("", *"+-−.∞0123456789") for c in cells)


def nearest(name: str, known: Iterable[str]) -> str:
    """The hint for a name that is not known: the nearest one that is, or all of them."""
    known = list(known)
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def _width(text: str) -> int:
    """Columns that the text takes: a combining mark, as in x̂, takes none."""
    return sum(not unicodedata.combining(letter) for letter in text)
