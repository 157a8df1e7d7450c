"""The ledger as a whole, and the rows of D0, D1, D3 and D4: none missing, none undecided, and each verdict can flip."""

import dataclasses
import pickle
import re
from pathlib import Path

import pytest

from refgrad.claims import LEDGER, Case, Check, Claim, run_claim
from refgrad.cli import main
from tests.claims import test_d2
from tests.lanes import fast_if

LAST = {"D0": 8, "D1": 21, "D3": 17, "D4": 4}  # D2's are in test_d2.py
ROWS = [id for id in LEDGER if not id.startswith("D2.")]
HOLDS_WHEN = {
    *("D0.7", "D1.9", "D1.10", "D1.12", "D1.15", "D1.17", "D1.21", "D3.6", "D3.14", "D4.2"),
}
# Row → the checks that are wrong.
WRONG = {
    "D0.6": ["∂loss/∂W1", "∂loss/∂w_ij, its sum over k to D"],
    "D0.8": ["dloss/dh_ij = (1/BC) · 2 · dh_ij"],
    "D1.19": ["theirs costs more than that"],
    "D1.20": ["backward ≈ C", "forward + backward ≈ 2C"],
    "D3.5": ["it runs with the name that it imports"],
    "D3.8": ["the loss in W"],
    "D3.13": ["elements", "bytes"],
    "D3.17": [
        "the sum over m is",
        "the D × M argument is",
        "∂y_m/∂x_n at [n, m]",
        "components of a gradient in ℝᴺ",
    ],
    "D4.3": ["z", "∂z/∂b"],
}
# Rows of seconds: the slow lane has them.
LONG = {
    *("D1.1", "D1.2", "D1.8", "D1.10", "D1.11", "D1.12", "D1.13", "D1.14", "D1.21"),
    *("D3.1", "D3.3", "D3.4", "D3.5", "D3.8", "D3.9", "D3.10", "D3.16", "D4.1", "D4.2"),
}
# Rows whose formulas are planted with a fault: a right one, for a sample of each document.
SAMPLE = ("D0.3", "D0.4", "D0.5", "D1.1", "D1.3", "D1.5", "D3.12", "D3.15", "D4.1", "D4.4")


def find(id, says):
    (check,) = (check for check in LEDGER[id].checks if check.says == says)
    return check


def test_no_row_is_missing():
    assert [f"{document}.{n}" for document, last in LAST.items() for n in range(1, last + 1)] == ROWS


def test_the_readme_counts_the_verdicts():
    """By the sets that `test_verdict`, here and for D2, holds each row to."""
    when, wrong = HOLDS_WHEN | test_d2.HOLDS_WHEN, WRONG | test_d2.WRONG
    counts = [len(LEDGER), len(LEDGER) - len(when) - len(wrong), len(when), len(wrong)]
    readme = " ".join((Path(__file__).parents[2] / "README.md").read_text().split())
    counted = r"(\d+) rows, of which (\d+) hold, (\d+) hold under a named condition, and (\d+) are wrong"
    said = re.search(counted, readme)
    assert said and [int(number) for number in said.groups()] == counts


@pytest.mark.parametrize("id", fast_if(lambda id: id not in LONG, ROWS))
def test_verdict(id):
    outcome = run_claim(LEDGER[id])
    kind = "is wrong" if id in WRONG else "holds when" if id in HOLDS_WHEN else "holds"
    assert outcome.kind == kind, outcome.verdict
    assert [found.check.says for found in outcome.findings if found.kind == "is wrong"] == WRONG.get(id, [])


@pytest.mark.parametrize(("id", "says"), [(id, says) for id, checks in WRONG.items() for says in checks])
def test_the_right_formula_in_the_wrong_ones_place_holds(id, says, x64):
    check = find(id, says)
    assert check.corrected
    assert dataclasses.replace(check, printed=check.corrected).run().kind == "holds"


@pytest.mark.parametrize("id", SAMPLE)
def test_a_wrong_formula_in_a_right_ones_place_is_found(id, x64):
    check = next(check for check in LEDGER[id].checks if not check.when and next(iter(check.cases())).truth is not None)
    planted = dataclasses.replace(check, printed=f"1.001 * ({check.printed})", corrected=check.printed)
    finding = planted.run()
    assert finding.kind == "is wrong" and finding.reason
    assert dataclasses.replace(check, printed=f"1.001 * ({check.printed})", corrected="").run().kind == "undecided"


def test_an_undecided_row_turns_the_command_red(monkeypatch, capsys):
    def cases():
        yield Case("n=2", {"n": 2}, 5)

    check = Check("a sum", "n + 2", cases)
    monkeypatch.setitem(LEDGER, "D0.1", Claim("D0.1", "nowhere", "says", "runs", (check,)))
    assert main(["claims", "D0.1"]) == 1
    assert "undecided" in capsys.readouterr().out
    assert main(["claims", "D0.2"]) == 0


def test_an_unknown_row_is_named_with_the_nearest(capsys):
    assert main(["claims", "D0.9"]) == 2
    assert "D0.9" in capsys.readouterr().err


def test_an_outcome_goes_between_processes():
    outcome = run_claim(LEDGER["D1.13"])
    again = pickle.loads(pickle.dumps(outcome))
    assert again.claim is outcome.claim and again.data() == outcome.data()
