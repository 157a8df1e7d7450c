"""Run the documents' claims and print each one's verdict; exit code 0 only if every row has one."""

import argparse
from collections.abc import Sequence

import jax

from refgrad._files import write_json
from refgrad._text import nearest
from refgrad._workers import workers
from refgrad.claims import KINDS, LEDGER, Outcome, run_claim
from refgrad.jaxpr.versions import JAX
from refgrad.report.claims import ledger_table, row_text, summary

VERDICTS = {kind.split()[-1]: kind for kind in KINDS}


def run(options: argparse.Namespace) -> int:
    """Run, print and write; returns 0 if every row has a verdict, else 1. Raises ValueError for an unknown id."""
    chosen = _chosen(options.ids, options.document)
    with workers(len(chosen)) as each:
        outcomes = list(each(_run, chosen, "claims"))
    wanted = {VERDICTS[name] for name in options.verdict or VERDICTS}
    shown = [outcome for outcome in outcomes if outcome.kind in wanted]
    if options.json:
        rows = [outcome.data() for outcome in shown]
        write_json(options.json, {"ok": all(o.ok for o in outcomes), "jax": JAX, "rows": rows})
    print(f"refgrad claims on {jax.devices()[0].device_kind}, jax {JAX}, in float64\n")
    if options.ids:
        print("\n\n".join(map(row_text, shown)))
    elif shown:
        print(ledger_table(shown))
        print("\nrefgrad claims ID shows a row in full: every formula, figure, command and rule.")
    print(f"\n{summary(outcomes)}.")
    return 0 if all(outcome.ok for outcome in outcomes) else 1


def _run(id: str) -> Outcome:
    return run_claim(LEDGER[id])


def _chosen(ids: Sequence[str], documents: Sequence[str] | None) -> list[str]:
    """Return the ids of the rows named, or of all, of the documents named, or of all."""
    for name in ids:
        if name not in LEDGER:
            raise ValueError(f"{name} is not a row of the ledger: {nearest(name, LEDGER)}")
    return [id for id in ids or LEDGER if not documents or LEDGER[id].document in documents]
