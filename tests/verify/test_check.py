"""`check` on right rules of every kind, and on a planted fault for every property."""

import json
import re

import jax
import jax.numpy as jnp
import pytest

from refgrad.verify import PROPERTIES, assert_ok, check
from refgrad.verify.properties.methods import METHODS
from tests.verify.specimens import RIGHT, WRONG, matmul, normal, right_sine, rule, sine


@pytest.mark.parametrize("name", RIGHT)
def test_right_rule_passes_every_property(name):
    f, args = RIGHT[name]
    report = check(f, *args)
    assert report.ok, report
    assert {row.property for row in report.rows} >= {"structure", "value", "accuracy", "repeat"}


@pytest.mark.parametrize("name", WRONG)
def test_planted_fault_turns_its_property_red(name):
    red, f, args = WRONG[name]
    property = {
        "value": "structure",
        "float64": "accuracy",
        "points": "accuracy",
        "reverse over reverse": "second_order",
    }
    report = check(f, *args, properties=[property.get(red, red)])
    assert red in {row.property for row in report.failures}, report
    with pytest.raises(AssertionError, match=red):
        assert_ok(f, *args, properties=[property.get(red, red)])


def test_every_property_has_a_planted_fault():
    red = {red for red, _, _ in WRONG.values()}
    swapped = {"scan", "checkpoint", "shard_map"}  # in test_check_transforms.py
    methods = set(METHODS)  # in test_hiprim.py and test_flags.py
    assert red | swapped | methods | {"second_order"} >= set(PROPERTIES)


def test_float64_lane(x64):
    x, w = normal(3, 4, dtype=jnp.float64), normal(4, 2, dtype=jnp.float64)
    report = check(matmul, x, w, properties=["accuracy"])
    assert report.ok
    assert all(row.allowed < 1e-14 for row in report.of("accuracy"))
    slightly = sine(lambda x, g: (g * (1 + 1e-13) * jnp.cos(x),))
    assert not check(slightly, x, properties=["accuracy"]).ok


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_errors_stand_beside_autodiffs_own(dtype):
    report = check(matmul, normal(3, 4, dtype=dtype), normal(4, 2, dtype=dtype), properties=["accuracy"])
    assert report.ok, report
    for property in ("accuracy", "float64", "autodiff", "median"):
        assert [row.argument for row in report.of(property)] == ["x", "w"]


def test_failure_names_everything_a_person_needs():
    wrong = rule(lambda x, w: x @ w, lambda x, w: (x @ w, (x, w)), lambda kept, g: (g @ kept[1].T, -kept[0].T @ g))
    with pytest.raises(AssertionError) as caught:
        assert_ok(wrong, normal(3, 4), normal(4, 2), properties=["accuracy"])
    text = str(caught.value)
    assert "test_check.py" in text
    assert "index" in text
    assert "allowed" in text
    assert "w  " in text
    assert "\nx" not in text
    report = check(wrong, normal(3, 4), normal(4, 2), properties=["accuracy"])
    row = report.of("accuracy")[1]
    assert row.got == pytest.approx(-row.expected, rel=1e-5)


def test_json_holds_what_the_table_holds():
    report = check(right_sine, normal(4), properties=["accuracy"])
    data = json.loads(report.json())
    assert data["ok"] is True
    assert len(data["rows"]) == len(report.rows)
    assert data["facts"]["matmul precision"].startswith("highest")
    nan = check(sine(lambda x, g: (g * jnp.nan,)), normal(4), properties=["accuracy"])
    assert json.loads(nan.json())["rows"][0]["error"] == "inf"


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"order": 3}, ValueError, "order is 3"),
        ({"draws": 0}, ValueError, "draws is 0"),
        ({"properties": ["accurcy"]}, ValueError, "'accurcy' is not a property: choose from structure, accuracy"),
    ],
)
def test_bad_settings_are_named(settings, error, said):
    with pytest.raises(error, match=said):
        check(right_sine, normal(3), **settings)


def test_nothing_to_differentiate():
    with pytest.raises(TypeError, match=r"x: i32\[3\].*pass a float"):
        check(right_sine, jnp.arange(3, dtype=jnp.int32))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cotangent of another dtype", "the cotangent is bfloat16, its primal float32"),
        ("wrong tree", "must return one cotangent per argument"),
        ("wrong shape", r"returns float32\[2\] where the primal is float32\[4\]"),
        ("tracer leak", "a tracer leaks"),
    ],
)
def test_what_jax_refuses_is_one_clear_line(name, said):
    _, f, args = WRONG[name]
    report = check(f, *args, properties=["structure"])
    (row,) = report.failures
    assert "\n" not in row.note
    assert len(row.note) < 210
    assert re.search(said, row.note), row.note


def test_the_users_own_error_is_the_users():
    def f(x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        check(f, normal(3))


def test_standard_promotion_and_a_python_scalar():
    with jax.numpy_dtype_promotion("standard"):
        assert check(right_sine, 0.5, properties=["structure", "accuracy"]).ok


def test_order_one_leaves_second_order_out():
    assert not check(right_sine, normal(3), order=1, properties=["second_order"]).rows
