"""Plain text: tables, the one way in which reports print, and hints for a misspelt name."""

import difflib
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

WIDTH = 100  # columns of a report
NARROWEST = 12  # columns of a cell that is wrapped


class Table(NamedTuple):
    """A header and rows of cells, which print as `table` sets them and which a page can show in its own way."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        return table(*self)


def table(
    header: Sequence[str], rows: Iterable[Sequence[object]], most: int | None = None, notes: Sequence[str] = ()
) -> str:
    """Columns padded to their widest cell: the first to the left, numbers to the right.

    Text that would make a line longer than `most` columns is wrapped within its cell. `notes`, one a row, stand under
    their rows where they are not empty.

    Raises ValueError where a row has another length than the header.
    """
    cells = [list(map(str, header)), *(list(map(str, row)) for row in rows)]
    columns = list(zip(*cells, strict=True))
    right = [numeric(column[1:]) for column in columns]
    widths = [max(map(_width, column)) for column in columns]
    if most is not None:
        widths = _fitted(widths, right, most)

    def lines(row: Sequence[str]) -> list[str]:
        parts = [[c] if r else _wrapped(c, w) for c, r, w in zip(row, right, widths, strict=True)]
        height = max(map(len, parts))
        return [line([part[k] if k < len(part) else "" for part in parts]) for k in range(height)]

    def line(row: Sequence[str]) -> str:
        blanks = (" " * (w - _width(c)) for c, w in zip(row, widths, strict=True))
        return "  ".join(space + c if r else c + space for c, space, r in zip(row, blanks, right, strict=True)).rstrip()

    found = [line(cells[0]), line(["─" * w for w in widths])]
    for k, row in enumerate(cells[1:]):
        found += lines(row)
        if k < len(notes) and notes[k]:
            found.append(textwrap.fill(notes[k], most or WIDTH, initial_indent="  · ", subsequent_indent="    "))
    return "\n".join(found)


def wrapped(text: str, most: int = WIDTH) -> str:
    """Lines of at most `most` columns, the later ones indented."""
    return textwrap.fill(text, most, subsequent_indent="  ", break_on_hyphens=False)


def short_path(place: str) -> str:
    """`file:line` relative to the current directory where it lies inside."""
    try:
        return str(Path(place).relative_to(Path.cwd()))
    except ValueError:
        return place


def is_integer(text: str) -> bool:
    """Return True for ASCII digits alone, which `int` reads; `str.isdigit` holds for "²" and "٣" too."""
    return text.isascii() and text.isdigit()


def _fitted(widths: list[int], fixed: list[bool], most: int) -> list[int]:
    """Narrow the widest column that can be wrapped, again and again, until a line fits."""
    widths = list(widths)
    while sum(widths) + 2 * (len(widths) - 1) > most:
        widest = max((w for w, f in zip(widths, fixed, strict=True) if not f), default=0)
        if widest <= NARROWEST:
            break
        widths[next(i for i, w in enumerate(widths) if w == widest and not fixed[i])] -= 1
    return widths


def _wrapped(cell: str, width: int) -> list[str]:
    if _width(cell) <= width:
        return [cell]
    return textwrap.wrap(cell, width, break_on_hyphens=False)


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
