"""Rows of the ledger from a TOML file: a document's statements are data, the cases that decide them are functions.

How to write a row (an example is D0.4 in `d0.toml`, decided by `d0.py` beside it; modules without a leading underscore
are found by themselves):

1. `[[claims]]` is a row, a `Claim`: id, the section's heading (`place`), the statement in words of our own (`says`) and
   what is evaluated (`runs`); optionally related rows (`see`), the command or experiment that shows more (`more`) and
   the operations whose derived rules were run (`ops`).
2. `[[claims.checks]]` is one thing that the document prints, a `Check`. `printed` and `corrected` are formulas
   (`_formula.py`). `when` is a formula over the cases' values that must be true exactly where `printed` holds,
   `condition` the same in words.
3. `cases` names what yields the check's cases, three non-square shapes at least where shapes are free: a function of
   the module, or a call of one with literal arguments, as in "gradient('W2')". A check whose formula the program itself
   makes is named by `check` alone.
4. `Case(at, values, truth)` is one shape or setting: the names that the formula may use (NumPy arrays in float64, or
   Python integers, which stay exact) and what the oracle says there. `_oracle.py` makes truths: `gradients(f, *args)`
   runs the project's derived rule and autodiff of the plain forward, and insists that they agree; counts come from
   `cost.count`, `cost.count_backward` and `cost.residuals`. Without a truth, the formula is a statement that must be
   true there, such as "backward <= few * forward", its thresholds named among the values (`bounds`).
5. The module's `CLAIMS` is the tuple of its rows: `claims(__name__)`, as its last line.
"""

import ast
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from refgrad._files import read_toml
from refgrad.claims._ledger import Check, Claim

Names = Mapping[str, Any]


def table(module: str, key: str) -> list[dict[str, Any]]:
    """Return an array of tables in the TOML file beside a module."""
    return read_toml(Path(str(sys.modules[module].__file__)).with_suffix(".toml"))[key]


def claims(module: str, **shared: Any) -> tuple[Claim, ...]:
    """Return the claims in the TOML file beside a module, decided by its functions and by `shared` ones."""
    names = {**vars(sys.modules[module]), **shared}
    return tuple(_claim(names, **row) for row in table(module, "claims"))


def _claim(names: Names, checks: list[dict[str, str]], see: Any = (), ops: Any = (), **row: str) -> Claim:
    made = tuple(check for each in checks for check in _checks(names, **each))
    return Claim(**row, checks=made, see=tuple(see), ops=tuple(ops))


def _checks(names: Names, check: str = "", cases: str = "", **row: str) -> Sequence[Check]:
    if not check:
        return [Check(**row, cases=_named(names, cases))]
    made = _named(names, check)
    return [made] if isinstance(made, Check) else made


def _named(names: Names, text: str) -> Any:
    """Return the object that `text` names, or the result of a call of it with literal arguments."""
    node = ast.parse(text, mode="eval").body
    if not isinstance(node, ast.Call):
        return names[text]
    keywords = {str(k.arg): ast.literal_eval(k.value) for k in node.keywords}
    return names[ast.unparse(node.func)](*map(ast.literal_eval, node.args), **keywords)
