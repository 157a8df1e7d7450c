"""The survey's page: a table of packages, and every use that is not simply right."""

import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from refgrad._files import write_text

COLUMNS = ("right", "wrong", "meant to differ", "not decided", "crashed")
MUTANTS = ("caught", "survived", "equivalent", "tolerated", "not run")
HEAD = """# The rules of public packages

`verify.check` on the hand-written rules of public packages, each in its released version. A use is one function at
one set of arguments. "Wrong" counts the faults that are shown below, and rules that differ on purpose where no intent
is stated. Texts for the maintainers are in [found](found/README.md).

    python experiments/world_rules.py --set mutants=12

Seconds are CPU seconds of one process. A use keeps its result until it is run again, so that the rows may be of several
runs.

"""

MUTANTS_HEAD = """Rules that the uses call, edited in place: the first cotangent, or the tangents, scaled by 1.01,
negated, zeroed, doubled, rolled, or with one entry off by a tenth. They are drawn with a fixed seed from all uses,
rules and edits. "Equivalent" leaves the gradient at these arguments as it is (one entry cannot be rolled, 0 cannot be
scaled); "tolerated" changes it by less than twice the tolerance that the use states."""


def write_page(
    path: Path, found: Sequence[dict[str, Any]], summary: Sequence[str], failures: Sequence[str] = ()
) -> None:
    """Write the page as Markdown; `failures` are the lines about what does not hold."""
    sections = [
        summary,
        packages(found),
        ["## Mutants", "", MUTANTS_HEAD, "", *mutants(found)],
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
        median = statistics.median(r.get("seconds", 0.0) for r in results)
        cells = [package, results[0]["version"], results[0]["jax"], len(results), *(outcomes[c] for c in COLUMNS)]
        rows.append([*cells, f"{median:.1f}"])
    return table(["package", "version", "JAX", "uses", *COLUMNS, "median s"], rows)


def mutants(found: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table of verdicts on mutants, for each package that has some."""
    rows = []
    for package in dict.fromkeys(r["package"] for r in found):
        verdicts = Counter(
            v.split(":")[0] for r in found if r["package"] == package for v in r.get("mutants", {}).values()
        )
        if verdicts:
            rows.append([package, verdicts.total(), *(verdicts[v] for v in MUTANTS)])
    return table(["package", "drawn", *MUTANTS], rows)


def reasons(found: Sequence[dict[str, Any]], outcome: str) -> list[str]:
    """Return the uses of which an outcome is expected, and found, with the reason."""
    rows = [[r["package"], r["use"], r["why"]] for r in found if r["outcome"] == r["expected"] == outcome]
    return table(["package", "use", "reason"], rows)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Return a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]
