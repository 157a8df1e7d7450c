"""A comparison as text: the figures, then the changes by cause, by scope and by source line."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from refgrad._text import WIDTH, table
from refgrad.cost.comparison.items import FIGURES, Figures, summed
from refgrad.cost.comparison.naming import MOVED
from refgrad.cost.comparison.program import Program

if TYPE_CHECKING:
    from refgrad.cost.comparison.comparison import Comparison

MOST = 20  # rows of a table
COLUMNS = 3  # figures of a table
_NUMBER = re.compile(r"(?<=[._])\d+(?=/|$)")


def text(found: "Comparison") -> str:
    """Return a comparison in lines of at most `WIDTH` columns."""
    parts = [_totals(found)]
    if found.differences:
        causes, scopes, sources = map(_ranked, (found.by_cause, _layers(found.by_scope), found.by_source))
        parts += _tables("cause", causes)
        if any(scope for scope, _ in scopes):
            parts += _tables("scope", [(scope or "(no scope)", change) for scope, change in scopes])
        notes = _notes(found)
        named = [(_place(source), change) for source, change in sources]
        parts += _tables("line", named, [notes.get(source, "") for source, _ in sources])
    unexplained = ", ".join(f"{n:,} {name}" for name, n in found.unexplained._asdict().items() if n)
    parts.append(f"Unexplained: {unexplained or 0}.")
    parts += [f"note: {note}" for note in dict.fromkeys((*found.before.notes, *found.after.notes))][:MOST]
    return "\n\n".join(parts)


def _totals(found: "Comparison") -> str:
    before, after = found.figures
    rows = []
    for name, a, b in zip(FIGURES, before, after, strict=True):
        if a or b:
            limit = found.allowed[name].of(a) if name in found.allowed else 0
            verdict = "too much" if name in found.exceeded else f"≤ {limit:+,}" if b > a else ""
            rows.append([name, f"{a:,}", f"{b:,}", f"{b - a:+,}", f"{(b - a) / a:+.2%}" if a else "", verdict])
    heads = [f"before: {_title(found.before)}", f"after:  {_title(found.after)}", ""]
    return "\n".join([*heads, table(["figure", "before", "after", "change", "%", ""], rows)])


def _title(program: Program) -> str:
    made = ", ".join(f"{name} {version}" for name, version in program.versions.items() if name in ("jax", "refgrad"))
    flags = " ".join(f"{name}={value}" for name, value in program.flags.items())
    return ", ".join(filter(None, (program.name, "backward" * program.backward, program.stage, flags, made)))


def _layers(scopes: Mapping[str, Figures]) -> dict[str, Figures]:
    """The changes by scope, with numbered layers, such as h.0 and h.1, in one."""
    parts = summed((_NUMBER.sub("*", scope), change) for scope, change in scopes.items())
    return {name: change for name, change in parts.items() if any(change)}


def _ranked(parts: Mapping[str, Figures]) -> list[tuple[str, Figures]]:
    return sorted(parts.items(), key=_size, reverse=True)


def _size(row: tuple[str, Figures]) -> tuple[int, ...]:
    flops, transcendentals, moved, kept, exchanged = map(abs, row[1])
    return flops + transcendentals, moved + kept + exchanged


def _tables(name: str, rows: list[tuple[str, Figures]], notes: list[str] | None = None) -> list[str]:
    """The rows' changes, as many figures a table as fit its width; a long table is cut."""
    shown = [n for n in range(len(FIGURES)) if any(change[n] for _, change in rows)]
    found = []
    for start in range(0, len(shown), COLUMNS):
        columns = shown[start : start + COLUMNS]
        kept = [k for k, (_, change) in enumerate(rows) if any(change[n] for n in columns)]
        cells = [[rows[k][0], *(f"{rows[k][1][n]:+,}" if rows[k][1][n] else "" for n in columns)] for k in kept[:MOST]]
        beneath = [notes[k] if notes else "" for k in kept[:MOST]]
        lines = table([name, *(FIGURES[n] for n in columns)], cells, most=WIDTH, notes=beneath)
        more = len(kept) - MOST
        found.append(lines + (f"\n… and {more} more, all of them in json()" if more > 0 else ""))
    return found


def _notes(found: "Comparison") -> dict[str, str]:
    """Source line → its text, and the causes of the changes there."""
    causes: dict[str, dict[str, Figures]] = {}
    texts: dict[str, str] = {}
    for one in found.differences:
        if one.cause != MOVED:
            changes = causes.setdefault(one.source, {})
            changes[one.cause] = changes.get(one.cause, Figures()).plus(one.change)
            texts[one.source] = one.text if one.text != one.source else ""
    named = {source: ", ".join(cause for cause, n in changes.items() if any(n)) for source, changes in causes.items()}
    return {source: " ← ".join(filter(None, (texts[source], named[source]))) for source in causes}


def _place(source: str) -> str:
    most = WIDTH // 2
    return (source if len(source) <= most else f"…{source[1 - most :]}") or "(no line)"
