"""The public names of every room: each listed as data, and each function of the contract documented by an example."""

import ast
import doctest
import importlib
import inspect
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "refgrad"
ROOMS = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))
CONTRACT = {
    **{room: None for room in ("refgrad.cost", "refgrad.ops", "refgrad.verify", "refgrad.weights")},
    "refgrad.models.gpt2": ("init", "logits", "loss"),
}
SECTIONS = ("Args:", "Returns:", "Raises:", "Example:")
FREE = {  # sections that would be empty: a function without arguments, without a result, or that does not raise
    "assert_cost": {"Returns:"},
    "assert_ok": {"Returns:"},
    "assert_unchanged": {"Returns:"},
    "save": {"Returns:"},
    "record": {"Args:", "Returns:", "Raises:"},
    **{name: {"Raises:"} for name in ("equivalent", "init", "remaining_rules", "widen", "without_rules")},
}


def functions():
    """Every public function of the contract, and the modules among the names whose docstring has examples."""
    for module, names in CONTRACT.items():
        room = importlib.import_module(module)
        for name in names or room.__all__:
            value = getattr(room, name)
            if inspect.isfunction(value) or inspect.ismodule(value):
                yield pytest.param(value, id=f"{module}.{name}")


@pytest.mark.parametrize("room", [PACKAGE, *ROOMS], ids=lambda room: room.name)
def test_a_room_lists_its_names(room):
    tree = ast.parse((room / "__init__.py").read_text())
    lists = [n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"]
    assert len(lists) == 1
    names = ast.literal_eval(lists[0])
    module = importlib.import_module("refgrad" if room is PACKAGE else f"refgrad.{room.name}")
    files = {path.stem for path in room.iterdir()}
    assert [name for name in names if not hasattr(module, name) and name not in files] == []


@pytest.mark.parametrize("value", list(functions()))
def test_a_public_function_is_documented(value):
    text = inspect.getdoc(value) or ""
    if inspect.isfunction(value):
        expected = set(SECTIONS) - FREE.get(value.__name__, set())
        assert [section for section in SECTIONS if section in expected and section not in text] == []
    examples = doctest.DocTestParser().get_doctest(text, {}, value.__name__, None, None)
    assert examples.examples or inspect.ismodule(value)
    said = []
    assert doctest.DocTestRunner(verbose=False).run(examples, out=said.append).failed == 0, "".join(said)
