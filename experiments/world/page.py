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
is stated.

    python experiments/world_rules.py

"""


def write_page(path: Path, found: Sequence[dict[str, Any]], summary: Sequence[str]) -> None:
    """Write the page as Markdown."""
    write_text(path, HEAD + "\n".join([*summary, "", *packages(found), "", *faults(found), "", *unlike(found), ""]))


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


def faults(found: Sequence[dict[str, Any]]) -> list[str]:
    """Return the uses that fail as expected, with the reason."""
    rows = [[r["package"], r["use"], r["why"]] for r in found if r["outcome"] == r["expected"] == "wrong"]
    return ["## Failures, as expected", "", *table(["package", "use", "reason"], rows)]


def unlike(found: Sequence[dict[str, Any]]) -> list[str]:
    """Return the uses whose verdict is not the expected one."""
    rows = [
        [r["package"], r["use"], r["expected"], r["outcome"], r.get("seconds", ""), r["found"]]
        for r in found
        if r["outcome"] != r["expected"]
    ]
    if not rows:
        return ["Every other use has the verdict that is expected of it."]
    header = ["package", "use", "expected", "outcome", "s", "what was said"]
    return ["## Not as expected", "", *table(header, rows)]


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Return a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]
