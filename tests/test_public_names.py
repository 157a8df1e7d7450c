"""The public names of every room: each listed as data, and each function of the contract documented by an example."""

import ast
import doctest
import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

PACKAGE = Path(__file__).parents[1] / "refgrad"
ROOMS = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))
CONTRACT = {
    **{room: None for room in ("refgrad.cost", "refgrad.ops", "refgrad.verify", "refgrad.weights")},
    "refgrad.claims": None,
    "refgrad.cli": ("main",),
    "refgrad.ops.fused": None,
    "refgrad.verify.prove": None,
    "refgrad.models.gpt2": ("init", "logits", "loss"),
}
SECTIONS = ("Args:", "Returns:", "Raises:", "Example:")
FREE = {  # sections that would be empty: a function without arguments, without a result, or that does not raise
    "assert_cost": {"Returns:"},
    "assert_ok": {"Returns:"},
    "assert_unchanged": {"Returns:"},
    "save": {"Returns:"},
    "record": {"Args:", "Returns:", "Raises:"},
    **{
        name: {"Raises:"}
        for name in (
            "equivalent",
            "init",
            "main",
            "remaining_rules",
            "run_claim",
            "slight_mutants",
            "widen",
            "without_rules",
        )
    },
}


def is_function(value):
    """Return True for a function, with a rule of its own or without one."""
    return inspect.isfunction(getattr(value, "fun", value))


def functions():
    """Every public function of the contract, and the modules among the names whose docstring has examples.

    The operations' examples compile much for what they show: they run in the slow lane.
    """
    for module, names in CONTRACT.items():
        room, marks = importlib.import_module(module), (pytest.mark.slow,) * module.startswith("refgrad.ops")
        for name in names or room.__all__:
            value = getattr(room, name)
            if is_function(value) or inspect.ismodule(value):
                yield pytest.param(value, id=f"{module}.{name}", marks=marks)


@pytest.mark.parametrize("room", [PACKAGE, *ROOMS], ids=lambda room: room.name)
def test_a_room_lists_its_names(room):
    tree = ast.parse((room / "__init__.py").read_text())
    lists = [n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"]
    assert len(lists) == 1
    names = ast.literal_eval(lists[0])
    module = importlib.import_module("refgrad" if room is PACKAGE else f"refgrad.{room.name}")
    files = {path.stem for path in room.iterdir()}
    assert [name for name in names if not hasattr(module, name) and name not in files] == []


def examples_of(value):
    """The examples in the docstring of a function or module."""
    return doctest.DocTestParser().get_doctest(inspect.getdoc(value) or "", {}, value.__name__, None, None)


def missing(value):
    """The sections that a function's docstring lacks."""
    text = inspect.getdoc(value) or ""
    return [part for part in SECTIONS if part not in text and part not in FREE.get(value.__name__, ())]


def test_every_public_function_is_documented():
    values: list[Any] = [parameter.values[0] for parameter in functions()]
    assert len(values) > 80
    assert {value.__name__: missing(value) for value in values if is_function(value) and missing(value)} == {}
    assert [value.__name__ for value in values if is_function(value) and not examples_of(value).examples] == []


@pytest.mark.parametrize("value", list(functions()))
def test_the_examples_of_a_public_function_hold(value):
    examples, said = examples_of(value), []
    assert doctest.DocTestRunner(verbose=False).run(examples, out=said.append).failed == 0, "".join(said)
