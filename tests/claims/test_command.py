"""`refgrad claims`: what it prints fits its width, what it writes is whole, and a truth must have two witnesses."""

import json
import unicodedata

import jax.numpy as jnp
import numpy as np
import pytest

from refgrad._text import columns
from refgrad.claims import LEDGER, Case, Check, Claim, run_claim
from refgrad.claims._oracle import Disagreement, gradients
from refgrad.cli import main
from refgrad.jaxpr.versions import custom_vjp
from refgrad.report.claims import ledger_table

KEYS = {"id", "document", "title", "place", "says", "ran", "came_out", "verdict", "reason", "printed", "corrected"}


def cases():
    """More figures than a cell of the table takes."""
    for n in range(2, 40):
        yield Case(f"n={n}", {"x": np.arange(n * 1.0), "limit": 100_000_000.0 * n})


def long_claim(printed):
    words = "x̂ and what it is made of, said at length, " * 12
    return Claim("D0.1", "nowhere", words, words, (Check(words, printed, cases, corrected="max(x) < limit"),))


@pytest.mark.parametrize("printed", ["max(x) < limit", "max(x) > limit"])
def test_the_table_fits_its_width(printed):
    table = ledger_table([run_claim(long_claim(printed))])
    assert "in full by id" in table
    for line in table.splitlines():
        assert sum(not unicodedata.combining(letter) for letter in line) <= columns()


def test_a_row_in_full_holds_every_case(monkeypatch, capsys):
    monkeypatch.setitem(LEDGER, "D0.1", long_claim("max(x) > limit"))
    assert main(["claims", "D0.1"]) == 0
    out = capsys.readouterr().out
    assert "n=39" in out and "is wrong" in out and "corrected" in out
    assert max(map(len, out.splitlines())) <= columns() + 12  # of combining marks


def test_rows_are_chosen_and_written(tmp_path, capsys):
    path = tmp_path / "claims.json"
    assert main(["claims", "D0.3", "D0.8", "--verdict", "wrong", "--json", str(path)]) == 0
    out = capsys.readouterr().out
    assert "D0.8 ·" in out and "D0.3 ·" not in out
    assert "2 rows: 1 holds, 0 hold when …, 1 is wrong, 0 undecided" in out
    found = json.loads(path.read_text())
    (row,) = found["rows"]
    assert found["ok"] and row.keys() >= KEYS
    assert (row["id"], row["verdict"], row["corrected"]) == ("D0.8", "is wrong", "1 / (B * C) * 2 * H2")


@custom_vjp
def cube(x):
    return x**3


cube.defvjp(lambda x: (x**3, x), lambda x, ct: (ct * 3 * x**2 * 1.001,))


def test_a_rule_that_differs_from_autodiff_is_no_truth(x64):
    x = np.array([1.0, 2.0])
    assert np.array_equal(gradients(lambda x: jnp.sum(x**3), x)[0], 3 * x**2)
    with pytest.raises(Disagreement, match="differs"):
        gradients(lambda x: cube(x).sum(), x)


def test_an_error_in_a_case_is_a_row_without_a_verdict():
    def broken():
        yield Case("", {"x": x}, gradients(lambda x: cube(x).sum(), x)[0])

    x = np.array([1.0, 2.0])
    outcome = run_claim(Claim("D0.1", "nowhere", "says", "runs", (Check("x³", "3 * x**2", broken),)))
    assert outcome.kind == "undecided" and not outcome.ok
    assert "Disagreement" in outcome.verdict


def test_a_condition_must_separate():
    def parity():
        for n in range(4):
            yield Case(f"n={n}", {"n": n})

    def verdict(when):
        return Check("even", "n == 0 or n == 2", parity, when=when, condition="as said").run().kind

    assert verdict("n != 1 and n != 3") == "holds when"
    assert {verdict("n == 0"), verdict("n >= 0"), verdict("n < 0"), verdict("")} == {"undecided"}
