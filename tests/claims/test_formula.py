"""Formulas and listings: exact where Python is, NumPy's semantics elsewhere, and errors that name what is missing."""

from fractions import Fraction

import numpy as np
import pytest

from refgrad.claims._formula import FormulaError, compared, evaluate, names


def test_a_listing_names_its_steps_and_ends_with_its_value():
    assert evaluate("x = 2 * y; z = x + 1; x * z", {"y": 3}) == 42
    assert names("where(y < w, y, 0) + z") == ["where", "y", "w", "z"]


def test_a_step_hides_a_value_in_the_listing_alone():
    values = {"x": 1}
    assert evaluate("x = x + 1; x", values) == 2
    assert values == {"x": 1}


def test_functions_among_the_values_are_called_before_the_languages_own():
    assert evaluate("double(4)", {"double": lambda x: 2 * x}) == 8
    assert evaluate("tanh(1)", {"tanh": lambda x: "mine"}) == "mine"
    assert evaluate("tanh(x)", {"x": np.zeros(2)}).tolist() == [0, 0]


def test_integers_and_their_quotients_are_exact():
    n = 10**20 + 1
    assert evaluate("n * n - 1", {"n": n}) == n * n - 1
    assert evaluate("n / 3 + 1 / 6", {"n": n}) == Fraction(2 * n + 1, 6)
    assert evaluate("(n / 3) ** 2 == n * n / 9", {"n": n}) is True
    assert evaluate("n / 2.0", {"n": 1}) == 0.5


def test_a_quotient_beside_an_array_is_a_float():
    for formula in ("1 / 3 * x", "x / (1 / 3) / 9", "1 / 3 + 0 * x", "x * (2 / 3 - 1 / 3)"):
        value = evaluate(formula, {"x": np.ones(2)})
        assert value.dtype == np.float64 and np.allclose(value, 1 / 3, rtol=1e-15)


def test_a_slice_ends_within_its_array():
    x = np.arange(12.0).reshape(3, 4)
    assert np.array_equal(evaluate("x[:3, 1:4]", {"x": x}), x[:, 1:])
    assert evaluate("x[n - 1, -1]", {"x": x, "n": 3}) == 11
    for formula in ("x[:4]", "x[:, 1:5]"):
        with pytest.raises(IndexError, match="a sum to"):
            evaluate(formula, {"x": x})


def test_shapes_that_do_not_fit_are_an_error_of_the_formula():
    with pytest.raises(ValueError, match="mismatch"):
        evaluate("x @ x", {"x": np.ones((2, 3))})


def test_quotients_and_calls_of_a_statement_are_figures():
    assert compared("a / b <= c and d < max(e) + 1 < f") == ["a / b", "max(e) + 1"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no value: end it with a formula"),
        ("x = 1", "has no value: end it with a formula"),
        ("x +", "is not a formula: invalid syntax"),
        ("y + 1", "name 'y' is not defined"),
        ("y = x; z", "name 'z' is not defined"),
        ("unknown(1)", "name 'unknown' is not defined"),
        ("open(x)", "name 'open' is not defined"),
    ],
)
def test_a_formula_without_a_value_is_an_error_of_the_ledger(text, says):
    with pytest.raises(FormulaError, match=says):
        evaluate(text, {"x": 1})
