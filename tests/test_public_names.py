"""The public names: each module lists them, and each function and class is documented, with an example that runs."""

import ast
import doctest
import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "refgrad"
ROOMS = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))
FUNCTION = ("Args:", "Returns:", "Raises:", "Example:")
CLASS = ("Attributes:", "Example:")
FREE = {  # sections that would be empty: without arguments, without a result, without fields, or never raised
    "OverBudget": {"Attributes:"},
    "NoMeaning": {"Attributes:"},
    "UnknownCost": {"Attributes:"},
    "assert_cost": {"Returns:"},
    "assert_ok": {"Returns:"},
    "assert_unchanged": {"Returns:"},
    "keep_temporaries": {"Args:", "Raises:"},
    "page_faults": {"Args:", "Raises:"},
    "record": {"Args:", "Returns:", "Raises:"},
    "return_unused": {"Args:", "Returns:", "Raises:"},
    "save": {"Returns:"},
    **{
        name: {"Raises:"}
        for name in (
            "abstract_loss",
            "decay_mask",
            "equivalent",
            "init",
            "main",
            "matmul_flops",
            "remaining_rules",
            "run_claim",
            "shapes",
            "slight_mutants",
            "stack",
            "unstack",
            "widen",
            "without_rules",
        )
    },
}


def listed(path: Path) -> list[str]:
    """Return the `__all__` of a file, as it is written; empty where there is none."""
    tree = ast.parse(path.read_text())
    lists = [n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"]
    return ast.literal_eval(lists[0]) if lists else []


def module_of(path: Path) -> str:
    """Return the name of a file's module."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


PUBLIC = {module_of(path): names for path in sorted(PACKAGE.rglob("*.py")) if (names := listed(path))}


def named(room: str, name: str) -> Any:
    """Return what a module lists under a name, which can be a module that is not yet imported."""
    module = importlib.import_module(room)
    return getattr(module, name) if hasattr(module, name) else importlib.import_module(f"{room}.{name}")


def is_function(value: Any) -> bool:
    """Return True for a function, with a rule of its own or without one."""
    return inspect.isfunction(getattr(value, "fun", value))


def examples_of(value: Any) -> doctest.DocTest:
    """Return the examples in the docstring of a function, class or module."""
    return doctest.DocTestParser().get_doctest(inspect.getdoc(value) or "", {}, value.__name__, None, None)


def documented() -> list[Any]:
    """Return every public function and class once, and the modules among the names whose docstring has examples.

    The operations' examples compile much for what they show: they run in the slow lane.
    """
    found = {}
    for room, names in PUBLIC.items():
        for name in names:
            value = named(room, name)
            shown = inspect.ismodule(value) and value.__doc__ and ">>>" in value.__doc__
            if is_function(value) or inspect.isclass(value) or shown:
                marks = (pytest.mark.slow,) * (room.startswith("refgrad.ops") and is_function(value))
                found.setdefault(id(value), pytest.param(value, id=f"{room}.{name}", marks=marks))
    return list(found.values())


DOCUMENTED = documented()


def missing(value: Any) -> list[str]:
    """Return the sections that the docstring of a function or class lacks."""
    text = inspect.getdoc(value) or ""
    sections = CLASS if inspect.isclass(value) else FUNCTION
    return [part for part in sections if part not in text and part not in FREE.get(value.__name__, ())]


@pytest.mark.parametrize("room", [PACKAGE, *ROOMS], ids=lambda room: room.name)
def test_a_room_lists_its_names(room):
    names = listed(room / "__init__.py")
    module = importlib.import_module(module_of(room / "__init__.py"))
    files = {path.stem for path in room.iterdir()}
    assert names and [name for name in names if not hasattr(module, name) and name not in files] == []


def test_every_module_of_the_reference_lists_its_names(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "docs" / "extensions"), *sys.path])
    assert set(importlib.import_module("api").MODULES) <= set(PUBLIC)


def test_every_public_name_is_documented():
    values: list[Any] = [parameter.values[0] for parameter in DOCUMENTED]
    assert len(values) > 150
    gaps = {value.__name__: missing(value) for value in values if not inspect.ismodule(value)}
    assert {name: parts for name, parts in gaps.items() if parts} == {}
    assert [value.__name__ for value in values if not examples_of(value).examples] == []


@pytest.mark.parametrize("value", DOCUMENTED)
def test_the_examples_of_a_public_name_hold(value):
    examples, said = examples_of(value), []
    assert doctest.DocTestRunner(verbose=False).run(examples, out=said.append).failed == 0, "".join(said)
