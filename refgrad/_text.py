"""Plain-text tables: the one way in which reports print."""

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns padded to their widest cell: the first to the left, numbers to the right.

    Raises ValueError where a row has another length than the header.
    """
    cells = [list(map(str, header)), *(list(map(str, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [
        bool(column[1:]) and all(c == "" or c[0] in "+-−.∞0123456789" for c in column[1:])
        for column in zip(*cells, strict=True)
    ]

    def line(row: Sequence[str]) -> str:
        padded = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join([line(cells[0]), line(["─" * w for w in widths]), *map(line, cells[1:])])
