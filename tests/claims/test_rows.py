"""Rows of the ledger from TOML: each check is decided by the functions that it names, and a wrong name is an error."""

import sys
import types

import pytest

from refgrad.claims import Case, Check
from refgrad.claims._rows import claims

ROW = """
[[claims]]
id = "D0.1"
place = "nowhere"
says = "says"
runs = "runs"
see = ["D0.2"]

[[claims.checks]]
says = "twice"
cases = "multiples(2, of=3)"
printed = "2 * n"

[[claims.checks]]
check = "made"
"""


@pytest.fixture
def planted(tmp_path, monkeypatch):
    module = types.ModuleType("planted")
    module.__file__ = str(tmp_path / "planted.py")
    module.multiples = lambda n, of: lambda: [Case("", {"n": of}, n * of)]
    module.made = Check("made here", "1", list)
    monkeypatch.setitem(sys.modules, "planted", module)
    return tmp_path / "planted.toml"


def test_a_row_is_decided_by_the_functions_that_it_names(planted):
    planted.write_text(ROW)
    (claim,) = claims("planted")
    assert (claim.id, claim.see, claim.ops, claim.more) == ("D0.1", ("D0.2",), (), "")
    assert [check.says for check in claim.checks] == ["twice", "made here"]
    assert claim.checks[0].run().kind == "holds"


def test_functions_of_other_modules_are_passed(planted):
    planted.write_text(ROW.replace('"made"', '"made_there"'))
    (claim,) = claims("planted", made_there=(Check("one", "1", list), Check("two", "2", list)))
    assert [check.says for check in claim.checks] == ["twice", "one", "two"]


@pytest.mark.parametrize(
    ("right", "wrong", "error"),
    [("multiples(2", "unknown(2", KeyError), ("printed", "print", TypeError), ("(2, of", "(2 + n, of", ValueError)],
)
def test_a_wrong_name_is_an_error(planted, right, wrong, error):
    planted.write_text(ROW.replace(right, wrong))
    with pytest.raises(error):
        claims("planted")
