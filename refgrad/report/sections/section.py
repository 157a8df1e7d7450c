"""A section of the page: what one command gathered, as data for a template."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from refgrad._text import Table


@dataclasses.dataclass(frozen=True)
class Section:
    """One section. `data` is what its template shows, `error` what stands in its place where gathering failed.

    `ran` is False where it was left out. `name`, `group`, `command` and `seconds` are its task's, see
    `refgrad.report.sections.gather`.
    """

    title: str
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    template: str = "tables.html.j2"
    about: str = ""
    ok: bool = True
    ran: bool = True
    error: str = ""
    name: str = ""
    group: str = ""
    command: str = ""
    seconds: float = 0.0

    @property
    def verdict(self) -> str:
        """`"ok"`, `"FAIL"` or `"not run"`."""
        return "not run" if not self.ran else "ok" if self.ok else "FAIL"


def outcome(sections: Sequence[Section]) -> str:
    """Say how many sections hold, do not hold, and were not run."""
    counts = Counter(section.verdict for section in sections)
    held = f"{counts['ok']} of {len(sections)} hold"
    failed = f", {counts['FAIL']} {'does' if counts['FAIL'] == 1 else 'do'} NOT" if counts["FAIL"] else ""
    return held + failed + (f", {counts['not run']} not run" if counts["not run"] else "")


@dataclasses.dataclass(frozen=True)
class Shown:
    """A table of a section: its caption, whether its order may change (a tree's may not), and a note below it."""

    caption: str
    table: Table
    sortable: bool = True
    note: str = ""
