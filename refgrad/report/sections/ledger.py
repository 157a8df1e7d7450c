"""The claims ledger: every row run now."""

from refgrad.claims import KINDS, LEDGER, run_claim
from refgrad.report.claims import summary
from refgrad.report.sections.section import Section


def ledger() -> Section:
    """Every row's verdict, with its checks, figures and corrected formulas."""
    outcomes = [run_claim(claim) for claim in LEDGER.values()]
    return Section(
        "What the documents say, and what came out",
        {"rows": [outcome.data() for outcome in outcomes], "kinds": KINDS},
        "ledger.html.j2",
        about=summary(outcomes) + ".",
        ok=all(outcome.ok for outcome in outcomes),
    )
