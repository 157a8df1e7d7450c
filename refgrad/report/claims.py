"""The claims ledger as text: a table of rows, or one row in full."""

import textwrap
import unicodedata
from collections import Counter
from collections.abc import Sequence

from refgrad._text import columns, counted, fitted
from refgrad.claims import DOCUMENTS, KINDS, Finding, Outcome

ID = 6  # columns of a row's id
SHARES = {"says": 30, "came out": 27, "verdict": 29, "corrected": 20}  # of the columns that are left
LINES = 9  # of a cell, after which the table refers to the full row


def ledger_table(outcomes: Sequence[Outcome]) -> str:
    """One row per claim, its cells wrapped; a line between documents."""
    left = columns() - ID - 2 * len(SHARES)
    widths = {"id": ID, **{name: left * share // sum(SHARES.values()) for name, share in SHARES.items()}}
    lines = ["  ".join(name.ljust(width) for name, width in widths.items()).rstrip()]
    document = ""
    for outcome in outcomes:
        claim = outcome.claim
        if claim.document != document:
            document = claim.document
            lines.append(fitted(f"── {document}: {DOCUMENTS[document]} ".ljust(columns(), "─")))
        cells = (claim.id, claim.says, outcome.came_out, outcome.verdict, outcome.corrected)
        wrapped = [_wrapped(cell, width) for cell, width in zip(cells, widths.values(), strict=True)]
        for i in range(max(map(len, wrapped))):
            parts = [cell[i] if i < len(cell) else "" for cell in wrapped]
            lines.append("  ".join(map(_padded, parts, widths.values())).rstrip())
        lines.append("")
    return "\n".join(lines).rstrip()


def row_text(outcome: Outcome) -> str:
    """One claim in full: every check with the printed formula, its outcome and the reason."""
    claim = outcome.claim
    parts = [
        f"{claim.id} · {DOCUMENTS[claim.document].title} · {claim.place}",
        _labelled("says", claim.says),
        _labelled("ran", claim.runs),
    ]
    parts += [*map(_check_text, outcome.findings), _labelled("verdict", outcome.verdict)]
    related = {"see": ", ".join(claim.see), "more": claim.more}
    related["rules"] = ", ".join(f"refgrad/ops/{name}.py" for name in claim.ops)
    parts += [_labelled(name, text) for name, text in related.items() if text]
    return "\n".join(parts)


def summary(outcomes: Sequence[Outcome]) -> str:
    """Number of rows with each verdict, in words."""
    counts = Counter(outcome.kind for outcome in outcomes)
    several = {"holds": "hold", "holds when": "hold when …", "is wrong": "are wrong", "undecided": "undecided"}
    one = {"holds when": "holds when …"}
    kinds = (f"{counts[kind]} {one.get(kind, kind) if counts[kind] == 1 else several[kind]}" for kind in KINDS)
    return f"{counted(len(outcomes), 'row')}: {', '.join(kinds)}"


def _check_text(finding: Finding) -> str:
    check = finding.check
    verdict = finding.kind + (f": {finding.reason}" if finding.reason else "")
    facts = {"printed": check.printed, "came out": finding.figures.full, "verdict": verdict}
    if finding.kind == "is wrong":
        facts["corrected"] = check.corrected
    inner = [_labelled(f"  {name}", text, 15) for name, text in facts.items() if text]
    return "\n".join([_labelled("check", check.says), *inner])


def _labelled(name: str, text: str, indent: int = 10) -> str:
    return textwrap.fill(text, columns(), initial_indent=name.ljust(indent), subsequent_indent=" " * indent)


def _wrapped(text: str, width: int) -> list[str]:
    lines = textwrap.wrap(text, width)
    return lines if len(lines) <= LINES else [*lines[: LINES - 1], "… (in full by id)"]


def _padded(text: str, width: int) -> str:
    """`text` with blanks up to `width` columns: a combining mark, as in x̄, takes none."""
    return text + " " * (width - sum(not unicodedata.combining(letter) for letter in text))
