"""D2's rows: each verdict, found by the program: with the right formula in a wrong one's place it flips, and back."""

import dataclasses

import jax
import numpy as np
import pytest

from refgrad import cost
from refgrad.claims import LEDGER, run_claim
from refgrad.claims.d2 import _cases, elementwise
from refgrad.claims.d2._systems import LENGTHS
from refgrad.ops import TABLE
from refgrad.symbols import evaluate
from tests.lanes import fast_if

ROWS = [id for id in LEDGER if id.startswith("D2.")]
HOLDS_WHEN = {
    *("D2.5", "D2.7", "D2.8", "D2.9", "D2.10b", "D2.11", "D2.12", "D2.13", "D2.14", "D2.15", "D2.17", "D2.20"),
    *("D2.21", "D2.23"),
}
# Row → the checks that are wrong.
WRONG = {
    "D2.18": ["O(h) additions, the least possible", "O(h) additions, XLA's scatter"],
    "D2.22": ["the last line"],
    "D2.25.10": ["bytes (the rule keeps x̂, 1/√(σ² + ε) and γ)", "beta is needed: with another one a gradient changes"],
    "D2.26.27": [LEDGER["D2.26.27"].checks[0].says],
    "D2.26.29": [LEDGER["D2.26.29"].checks[0].says],
    "D2.26.34": [LEDGER["D2.26.34"].checks[0].says],
}

# Rows of seconds: the slow lane has them.
LONG = {"D2.1", "D2.2", "D2.3", "D2.12", "D2.14", "D2.18", "D2.21", "D2.23", "D2.24", "D2.26.17"}


def find(id, says):
    (check,) = (check for check in LEDGER[id].checks if check.says == says)
    return check


@pytest.mark.parametrize("id", fast_if(lambda id: id not in LONG, ROWS))
def test_verdict(id):
    outcome = run_claim(LEDGER[id])
    kind = "is wrong" if id in WRONG else "holds when" if id in HOLDS_WHEN else "holds"
    assert (outcome.kind, outcome.verdict.partition(" ")[0]) == (kind, kind.partition(" ")[0]), outcome.verdict
    assert [f.check.says for f in outcome.findings if f.kind == "is wrong"] == WRONG.get(id, [])


def test_every_row_of_the_document_is_there():
    numbers = {id.split(".")[1] for id in ROWS}
    assert numbers == {*map(str, range(1, 27)), "10b"}
    assert sum(id.startswith("D2.25.") for id in ROWS) == 11
    named = {LEDGER[id].more.rpartition("--op ")[2] for id in ROWS if "--op " in LEDGER[id].more}
    assert named | {op for id in ROWS for op in LEDGER[id].ops} <= set(TABLE)
    assert {see for id in ROWS for see in LEDGER[id].see if see.startswith("D2.")} <= set(ROWS)


@pytest.mark.parametrize(("id", "says"), [(id, says) for id, checks in WRONG.items() for says in checks])
def test_the_right_formula_in_the_wrong_ones_place_holds(id, says, x64):
    check = find(id, says)
    assert check.run().kind == "is wrong"
    assert dataclasses.replace(check, printed=check.corrected).run().kind == "holds"


# Row, check, a piece of its formula, and a wrong one for it.
PLANTED = [
    ("D2.1", "FLOPs", "ratio - 2", "ratio - 1"),
    ("D2.2", "the loss", "x = x + f @", "x = f @"),
    ("D2.2", "the loss", "/ sqrt(d)", "/ d"),
    ("D2.3", "matrix, ∂L/∂W", "x.T @ dz", "dz.T @ x"),
    ("D2.3", "tensor, ∂L/∂W as one (N, bs) @ (bs, P)", "b * s", "s * b + 1"),
    ("D2.4", "query @ key, ∂L/∂key", "dx.T @ q", "dx @ q"),
    ("D2.5", "additions", "n - 1", "n"),
    ("D2.6", "FLOPs", "4*", "2*"),
    ("D2.10", "FLOPs", "*d", ""),
    ("D2.12", "shifted by max x, which stands more than once", "dz - sum", "dz + sum"),
    ("D2.13", "∂L/∂x", "exp(p)", "p"),
    ("D2.14", "∂L/∂x", "- x_hat * mean(v * x_hat, -1, keepdims=True)", ""),
    ("D2.14", "∂L/∂γ", "dy * x_hat", "dy"),
    ("D2.14", "FLOPs of ∂L/∂x", "8 *", "6 *"),
    ("D2.15", "the listing", "right = 1 + tanh_inner", "right = 1 - tanh_inner"),
    ("D2.16", "∂L/∂x", "sqrt(d)", "d"),
    ("D2.18", "row i sums over t_j = i", "dy)", "dy) / b"),
    ("D2.18", "[2, 5, 2]: row 2", "dX[0:1] + dX[2:3]", "dX[2:3]"),
    ("D2.19", "FLOPs", "(b - 1)", "b"),
    ("D2.20", "∂L/∂p", "(b * s)", "s"),
    ("D2.24", "FLOPs", ">=", "<="),
    ("D2.25.11", "bytes", "4 * h", "h"),
    ("D2.26.6", "∂z_j/∂x_i = −z_j z_i", "-other", "other"),
    ("D2.26.26", "∂μ/∂x_i = 1/N", "/ N", "/ (N - 1)"),
    ("D2.26.31", "∂x̂_i/∂x_i, the diagonal", "- x_hat ** 2", "+ x_hat ** 2"),
    ("D2.26.39", "∂L/∂x with 1 − tanh²", "1 - tanh", "1 + tanh"),
]


@pytest.mark.parametrize(("id", "says", "piece", "wrong"), fast_if(lambda id, *_: id not in LONG, PLANTED))
def test_a_planted_wrong_formula_is_found(id, says, piece, wrong, x64):
    check = find(id, says)
    assert piece in check.printed
    planted = dataclasses.replace(check, printed=check.printed.replace(piece, wrong, 1), corrected=check.printed)
    finding = planted.run()
    assert finding.kind == "is wrong" and finding.reason
    assert dataclasses.replace(planted, printed=planted.corrected).run().kind == "holds"


@pytest.mark.parametrize("id", fast_if(lambda id: id not in LONG, sorted(HOLDS_WHEN)))
def test_each_condition_is_needed(id, x64):
    """Without its condition, and with any part of it left out, a check that holds sometimes has no verdict."""
    for check in LEDGER[id].checks:
        parts = check.when.split(" and ")
        for part in parts if check.when else []:
            fewer = " and ".join(p for p in parts if p != part)
            assert dataclasses.replace(check, when=fewer, corrected="").run().kind == "undecided"


def test_x_hat_again_costs_two_operations_an_element():
    """D2.14: from the input, means and variances, 13bsh where D2 has 11bsh."""
    outcome = run_claim(LEDGER["D2.14"])
    (finding,) = (f for f in outcome.findings if f.check.says == "FLOPs together")
    elements = [dims["b"] * dims["s"] * dims["h"] for dims in _cases.SIZES]
    with jax.enable_x64(True):
        again = [
            c.truth for c in finding.check.cases() if not c.values["kept"] and c.values["sums"] and c.values["rows"]
        ]
    assert again == [13 * n for n in elements]


def test_gelu_is_18_operations_of_which_one_is_a_tanh():
    assert [elementwise.listing_flops(7, how) for how in ((), ("transcendentals",), tuple(elementwise.LISTED))] == [
        *(7 * 17, 7 * 18, 7 * 19)
    ]


def test_sums_are_counted_by_what_they_make(x64):
    """The document's n for a sum of n terms is one more than XLA's for each result."""
    x = jax.ShapeDtypeStruct((3, 5), np.float64)
    counted = cost.count(lambda x: x.sum(0) + 1, x)
    assert [_cases.by(counted, x.size, how) for how in ((), ("sums",), ("rows",))] == [15, 20, 10]


def test_shapes_are_three_and_not_square():
    for dims in _cases.SIZES:
        assert dims["h"] == dims["n_h"] * dims["d"] and len({dims[k] for k in ("b", "s", "h", "V", "d")}) >= 4
    assert len(_cases.SIZES) == len(set(LENGTHS)) == 3
    assert all(
        evaluate(line.flops, {**dims, "n_L": 1}) >= 0 for line in _cases.PRINTED.values() for dims in _cases.SIZES
    )
