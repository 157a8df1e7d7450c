"""Listings and functions in the language of formulas."""

import numpy as np
import pytest

from refgrad.claims._formula import FormulaError, evaluate, names


def test_a_listing_names_its_steps_and_ends_with_its_value():
    assert evaluate("x = 2 * y; z = x + 1; x * z", {"y": 3}) == 42
    assert names("x = 2 * y; z = x + w; tanh(x * z)") == ["y", "w"]


def test_a_step_hides_a_value_in_the_listing_alone():
    values = {"x": 1}
    assert evaluate("x = x + 1; x", values) == 2
    assert values == {"x": 1}


def test_functions_among_the_values_are_called_before_the_languages_own():
    assert evaluate("double(4)", {"double": lambda x: 2 * x}) == 8
    assert evaluate("tanh(1)", {"tanh": lambda x: "mine"}) == "mine"
    assert evaluate("tanh(x)", {"x": np.zeros(2)}).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "there is no formula"),
        ("x = 1", "has no value: end it with a formula"),
        ("x += 1; x", "is no step of a listing"),
        ("import os; 1", "is no step of a listing"),
        ("y = x; z", "z has no value"),
        ("unknown(1)", "outside the language"),
        ("x = 1; x.shape", "outside the language"),
    ],
)
def test_what_is_no_listing_is_named(text, says):
    with pytest.raises(FormulaError, match=says):
        evaluate(text, {"x": 1})
