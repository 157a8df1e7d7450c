"""Plain text: tables, the one way in which reports print, and hints for a misspelt name."""

import difflib
import re
import shutil
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

WIDTH = 100  # columns of a report without a terminal
NARROWEST = 12  # columns of a cell that is wrapped
NUMBER = 24  # letters that a number may take, its unit included, or a word that is not broken
GAPS = ("  ", " ")  # between columns; the narrow one before a table is divided
_NUMBER = re.compile(r"$|[+\-−–.∞*\d]|nan$|inf$")
LONGEST = 600  # characters of a message


class Table(NamedTuple):
    """A header and rows of cells, which print as `table` sets them and which a page can show in its own way."""

    header: Sequence[str]
    rows: Sequence[Sequence[object]]

    def __str__(self) -> str:
        return table(*self)


def columns() -> int:
    """Columns to print in: those that `COLUMNS` says, else the terminal's, else 100."""
    return max(shutil.get_terminal_size((WIDTH, 24)).columns, 4 * NARROWEST)


def table(
    header: Sequence[str], rows: Iterable[Sequence[object]], most: int | None = None, notes: Sequence[str] = ()
) -> str:
    """Columns padded to their widest cell: the first to the left, numbers to the right.

    No line is longer than `most` columns (default: `columns()`): text is wrapped within its cell, and columns that
    still do not fit follow below, beside the first ones again. Numbers stay whole. `notes`, one a row, stand under
    their rows where they are not empty.

    Raises ValueError where a row has another length than the header.
    """
    most = columns() if most is None else most
    cells = [list(map(str, header)), *(list(map(str, row)) for row in rows)]
    every = list(zip(*cells, strict=True))
    right = [numeric(column[1:]) for column in every]
    least = [_least(column, r) for column, r in zip(every, right, strict=True)]
    names = 1 + (len(right) > 2 and not any(right[:2]) and sum(least[:2]) < most // 2)
    gap = next((gap for gap in GAPS if sum(least) + len(gap) * (len(least) - 1) <= most), GAPS[0])
    groups = _groups(least, names, most, gap)
    blocks = []
    for group in groups:
        widths = _fitted([max(map(_width, every[n])) for n in group], [least[n] for n in group], most, gap)
        shown = notes if group is groups[-1] else ()
        picked = [[row[n] for n in group] for row in cells]
        blocks.append("\n".join(_lines(picked, widths, [right[n] for n in group], shown, most, gap)))
    return "\n\n".join(blocks)


def wrapped(text: str, most: int | None = None) -> str:
    """Lines of at most `most` columns (default: `columns()`), the later ones indented."""
    return textwrap.fill(text, most or columns(), subsequent_indent="  ", break_on_hyphens=False)


def fitted(text: str) -> str:
    """The text, each of its lines wrapped."""
    return "\n".join(map(wrapped, text.splitlines()))


def short_path(place: str) -> str:
    """`file:line` relative to the current directory where it lies inside."""
    try:
        return str(Path(place).relative_to(Path.cwd()))
    except (ValueError, OSError):  # it lies elsewhere, or the current directory is gone
        return place


def is_integer(text: str) -> bool:
    """Return True for ASCII digits alone, which `int` reads; `str.isdigit` holds for "²" and "٣" too."""
    return text.isascii() and text.isdigit()


def prefixed(number: float, unit: str = "B") -> str:
    """Return the number to three digits with an SI prefix and the unit: "1.23 GB"."""
    for prefix, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if number >= size:
            return f"{number / size:.3g} {prefix}{unit}"
    return f"{number:,.0f} {unit}"


def _least(column: Sequence[str], number: bool) -> int:
    """The columns that a column needs at least: a number whole, text by its words, a sentence some columns."""
    words = max((_width(word) for cell in column[: 1 if number else None] for word in cell.split()), default=0)
    cells = (_width(cell) if number else min(_width(cell), NARROWEST) for cell in column[1:])
    return max([min(words, NUMBER), *cells])


def _groups(least: Sequence[int], names: int, most: int, gap: str) -> list[list[int]]:
    """The columns that stand beside each other, by number; each group begins with the first ones, which name a row."""
    groups = [[*range(names)]]
    for n in range(names, len(least)):
        if sum(least[k] + len(gap) for k in groups[-1]) + least[n] > most and len(groups[-1]) > names:
            groups.append([*range(names)])
        groups[-1].append(n)
    return groups


def _fitted(widths: list[int], least: Sequence[int], most: int, gap: str) -> list[int]:
    """Narrow the widest column that can be narrower, again and again, until a line fits."""
    widths = list(widths)
    while sum(widths) + len(gap) * (len(widths) - 1) > most:
        loose = [n for n, (width, own) in enumerate(zip(widths, least, strict=True)) if width > own]
        if not loose:
            break
        widths[max(loose, key=lambda n: widths[n])] -= 1
    return widths


def _lines(
    rows: Sequence[Sequence[str]],
    widths: Sequence[int],
    right: Sequence[bool],
    notes: Sequence[str],
    most: int,
    gap: str,
) -> Iterator[str]:
    """The header, a rule, and the rows with their notes."""
    for k, row in enumerate(rows):
        parts = [_wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
        for n in range(max(map(len, parts))):
            line = [part[n] if n < len(part) else "" for part in parts]
            yield gap.join(map(_padded, line, widths, right)).rstrip()
        if k == 0:
            yield gap.join("─" * width for width in widths)
        elif k <= len(notes) and notes[k - 1]:
            yield textwrap.fill(notes[k - 1], most, initial_indent="  · ", subsequent_indent="    ")


def _padded(cell: str, width: int, right: bool) -> str:
    space = " " * (width - _width(cell))
    return space + cell if right else cell + space


def _wrapped(cell: str, width: int) -> list[str]:
    """A cell's lines; the later ones keep its indentation."""
    if _width(cell) <= width:
        return [cell]
    indent = cell[: len(cell) - len(cell.lstrip())]
    indent = indent if len(indent) < width // 2 else ""
    return _Wrapper(width, indent, indent, break_on_hyphens=False).wrap(cell.strip())


class _Wrapper(textwrap.TextWrapper):
    """Wrapper that breaks lines between words, and paths between folders."""

    wordsep_simple_re = re.compile(r"(\s+|(?<=/))")


def numeric(cells: Sequence[object]) -> bool:
    """Return True for a column of numbers; gaps are ignored, and a sentence that begins with a number is not one."""
    return bool(cells) and all(_NUMBER.match(str(c)) and len(str(c)) <= NUMBER for c in cells)


def nearest(name: str, known: Iterable[str]) -> str:
    """The hint for a name that is not known: the nearest one that is, or all of them."""
    known = list(known)
    folded = {one.casefold(): one for one in reversed(known)}
    near = difflib.get_close_matches(name.casefold()[:LONGEST], folded, 1)
    return f"did you mean {folded[near[0]]}?" if near else f"known are {', '.join(known)}"


def one_line(text: str, most: int = LONGEST) -> str:
    """A message on one line; of a longer one than `most` characters, the beginning and the end."""
    text = re.sub(r"\s*\n\s*", " ", text.strip())
    left_out = len(text) - most
    if left_out <= 0:
        return text
    half = most // 2
    return f"{text[:half]} … ({left_out:,} characters left out) … {text[-half:]}"


def clipped(text: str, most: int) -> str:
    """The text, its end left out where it is longer than `most` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def counted(number: int, noun: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{number:,} {noun}" + "s" * (number != 1)


def _width(text: str) -> int:
    """Columns that the text takes: a combining mark, as in x̂, takes none."""
    return sum(not unicodedata.combining(letter) for letter in text)
