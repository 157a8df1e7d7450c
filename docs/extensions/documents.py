"""The claims ledger as pages: each document's citation, then its rows with the verdicts, computed now."""

import inspect
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from docstrings import escaped

from refgrad import claims
from refgrad.claims import DOCUMENTS, LEDGER, Outcome, run_claim


def pages() -> Iterator[tuple[str, Callable[[], str], list[Path]]]:
    """Yield each page as its path, what makes it, and the files that it is made from."""
    sources = sorted(Path(inspect.getfile(claims)).parent.rglob("*.py"))
    for name in DOCUMENTS:
        yield f"documents/{name}.md", partial(page, name), sources


def page(name: str) -> str:
    """Return one document's page."""
    document = DOCUMENTS[name]
    outcomes = [run_claim(claim) for claim in LEDGER.values() if claim.document == name]
    wrong = sum(outcome.kind == "is wrong" for outcome in outcomes)
    lines = [
        f"# {name}: {document.title}",
        "",
        re.sub(r"(https://\S+)", r"<\1>", escaped(str(document))) + ".",
        "",
        f"{len(outcomes)} rows, {wrong} of them wrong. `refgrad claims --document {name}` computes them again.",
    ]
    return "\n".join([*lines, *map(row, outcomes)]) + "\n"


def row(outcome: Outcome) -> str:
    """Return one row of the ledger."""
    claim = outcome.claim
    corrected = f"\n\nCorrected: `{outcome.corrected}`" if outcome.corrected else ""
    return f"""
## {claim.id}: {outcome.kind}

{escaped(claim.says)} ({escaped(claim.place)})

- **Verdict.** {escaped(outcome.verdict)}
- **Came out.** {escaped(outcome.came_out) or "–"}
- **Ran.** {escaped(claim.runs)}{_operations(claim.ops)}{corrected}"""


def _operations(names: tuple[str, ...]) -> str:
    links = ", ".join(f"[{name}](/operations/{name}.md)" for name in names)
    return f"\n- **Rules.** {links}" if links else ""
