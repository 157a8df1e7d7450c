"""Each operation's derivation as mathematics, with its way from the document's section to its file to the ledger."""

import inspect
import re
import sys
from collections.abc import Iterable
from typing import Any

from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from refgrad.claims import DOCUMENTS, LEDGER, Claim
from refgrad.ops import TABLE, OpSpec
from refgrad.report.mathml.prose import blocks, sentence
from refgrad.report.sections.section import Section, mathematics

REFERENCE = re.compile(r'\b(D\d)\b|"([^"]+)"')


def derivations() -> Section:
    """Every operation: derivation, costs, source, and the rows of the ledger that ran its rule."""
    cards = [card(row) for row in TABLE.values()]
    return Section(
        "Every operation, derived",
        {"cards": cards, "documents": documents(cards)},
        "derivations.html.j2",
        about="Each is set from the docstring of the file that computes it. A leading d marks a gradient: dx is "
        "∂L/∂x, of the shape of x.",
    )


def card(row: OpSpec) -> dict[str, Any]:
    """One operation as its template shows it."""
    module = sys.modules[row.op.fun.__module__]
    text, source = inspect.getdoc(module) or "", inspect.getsource(module)
    title, _, forward = text.partition(":")
    head, *rest = blocks(text)
    cited = references(text)
    return {
        "name": row.name,
        "title": sentence(" ".join(title.split())),
        "blocks": [head._replace(html=sentence(forward.partition("\n\n")[0].strip())), *rest],
        "file": module.__name__.replace(".", "/") + ".py",
        "cited": [(document, str(DOCUMENTS[document]), section) for document, section in cited],
        "claims": [claim.id for claim in LEDGER.values() if bears_on(claim, row.name, cited)],
        "costs": {
            "forward": [mathematics(part) for part in row.forward],
            "backward": [mathematics(part) for part in row.backward],
            "document": mathematics(row.published_flops) if row.published_flops else "–",
            "causes": {sentence(cause): mathematics(term) for cause, term in row.adjustments.items()},
            "residuals": mathematics(row.residuals),
        },
        "source": Markup(highlight(source, PythonLexer(), HtmlFormatter(nowrap=True))),
    }


def references(docstring: str) -> list[tuple[str, str]]:
    """The (document, section) pairs that the docstring's "Source:" names."""
    _, _, source = docstring.partition("Source:")
    document, found = "", []
    for name, section in REFERENCE.findall(" ".join(source.split())):
        if name:
            document = name
        elif document:
            found.append((document, section))
    return found


def bears_on(claim: Claim, operation: str, cited: Iterable[tuple[str, str]]) -> bool:
    """Return True if the claim ran the operation's rule, or stands in a section that the operation cites."""
    return operation in claim.ops or (claim.document, claim.place) in cited


def documents(cards: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each document's sections with the operations that cite them and the ledger's rows that stand in them."""
    found: dict[tuple[str, str], dict[str, Any]] = {}

    def at(document: str, section: str) -> dict[str, Any]:
        entry = {"document": document, "title": str(DOCUMENTS[document]), "section": section, "ops": [], "claims": []}
        return found.setdefault((document, section), entry)

    for claim in LEDGER.values():
        at(claim.document, claim.place)["claims"].append(claim.id)
    for one in cards:
        for document, _, section in one["cited"]:
            at(document, section)["ops"].append(one["name"])
    return sorted(found.values(), key=lambda entry: entry["document"])
