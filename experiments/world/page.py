"""The survey's page: a table of packages, and every use that is not simply right."""

import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from refgrad._files import write_text

COLUMNS = ("right", "wrong", "meant to differ", "not decided", "crashed")
HEAD = """# The rules of public packages

`verify.check` on the hand-written rules of public packages, each in its released version. A use is one function at
one set of arguments. "Wrong" counts the faults that are shown below, and rules that differ on purpose where no intent
is stated. Texts for the maintainers are in [found](found/README.md).

    python experiments/world_rules.py

Seconds are CPU seconds of one process. A use keeps its result until it is run again, so that the rows may be of several
runs.

"""


def write_page(
    path: Path, found: Sequence[dict[str, Any]], summary: Sequence[str], failures: Sequence[str] = ()
) -> None:
    """Write the page as Markdown; `failures` are the lines about what does not hold."""
    sections = [
        summary,
        packages(found),
        ["## Wrong, as expected", "", *reasons(found, "wrong")],
        ["## Meant to differ", "", *reasons(found, "meant to differ")],
        ["## What does not hold", "", *[f"- {line}" for line in failures]] if failures else ["Everything holds."],
    ]
    write_text(path, HEAD + "\n\n".join("\n".join(lines) for lines in sections) + "\n")


def packages(found: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table of packages."""
    rows = []
    for package in dict.fromkeys(r["package"] for r in found):
        results = [r for r in found if r["package"] == package]
        outcomes = Counter(r["outcome"] for r in results)
        verdicts = Counter(v for r in results for v in r.get("mutants", {}).values())
        tried = verdicts["caught"] + verdicts["survived"]
        median = statistics.median(r.get("seconds", 0.0) for r in results)
        cells = [package, results[0]["version"], results[0]["jax"], len(results), *(outcomes[c] for c in COLUMNS)]
        rows.append([*cells, f"{median:.1f}", f"{verdicts['caught']} of {tried}" if tried else ""])
    return table(["package", "version", "JAX", "uses", *COLUMNS, "median s", "mutants caught"], rows)


def reasons(found: Sequence[dict[str, Any]], outcome: str) -> list[str]:
    """Return the uses of which an outcome is expected, and found, with the reason."""
    rows = [[r["package"], r["use"], r["why"]] for r in found if r["outcome"] == r["expected"] == outcome]
    return table(["package", "use", "reason"], rows)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Return a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]
