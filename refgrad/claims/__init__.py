"""The claims ledger: every figure and formula of the documents that a program can test, and its verdict.

`LEDGER` maps each id ("D0.6") to its row; `run_claim(row)` computes its outcome. A new row is data in its document's
TOML file: `_rows.py` says how.
"""

import importlib
import pkgutil
import re

import jax

from refgrad.claims._documents import DOCUMENTS, Document
from refgrad.claims._formula import evaluate
from refgrad.claims._ledger import KINDS, Case, Check, Claim, Finding, Outcome

LEDGER: dict[str, Claim] = {}


def _order(id: str) -> list[tuple[int, str]]:
    """D2.10 before D2.10b before D2.11."""
    return [(int(digits or 0), letters) for digits, letters in re.findall(r"(\d+)|([a-z]+)", id[1:])]


def _collect() -> None:
    """Fill the ledger from the `CLAIMS` of every module without a leading underscore.

    Raises ValueError for an id that occurs twice.
    """
    found = {}
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            for claim in importlib.import_module(f"{__name__}.{module.name}").CLAIMS:
                other = found.setdefault(claim.id, claim)
                if other is not claim:
                    raise ValueError(f"{claim.id} occurs twice in the ledger: at {other.place} and {claim.place}")
    LEDGER.update(sorted(found.items(), key=lambda item: _order(item[0])))


_collect()


def run_claim(claim: Claim) -> Outcome:
    """Compute the outcome of one row of the ledger, with 64-bit types on.

    Args:
      claim: The row, from `LEDGER`.

    Returns:
      An `Outcome`: the row's verdict, and a finding for each of its checks.

    Example:
      >>> from refgrad.claims import LEDGER, run_claim
      >>> run_claim(LEDGER["D0.4"]).kind
      'holds'
    """
    with jax.enable_x64(True):
        return claim.run()


__all__ = [
    "DOCUMENTS",
    "KINDS",
    "LEDGER",
    "Case",
    "Check",
    "Claim",
    "Document",
    "Finding",
    "Outcome",
    "evaluate",
    "run_claim",
]
