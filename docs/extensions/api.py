"""The API reference: a page a module, its public names with their signatures and docstrings."""

import dataclasses
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from docstrings import markdown

MODULES = (
    "refgrad.verify",
    "refgrad.verify.intents",
    "refgrad.verify.exact",
    "refgrad.verify.prove",
    "refgrad.verify.record",
    "refgrad.verify.worst",
    "refgrad.cost",
    "refgrad.cost.conventions",
    "refgrad.cost.hlo",
    "refgrad.cost.predict",
    "refgrad.ops",
    "refgrad.ops.fused",
    "refgrad.models.gpt2",
    "refgrad.weights",
    "refgrad.claims",
    "refgrad.train.step",
    "refgrad.train.optimiser",
    "refgrad.train.allocator",
)


def pages() -> Iterator[tuple[str, Callable[[], str], list[Path]]]:
    """Yield each page as its path, what makes it, and the files that it is made from."""
    for name in MODULES:
        module = importlib.import_module(name)
        yield f"api/{name}.md", partial(page, module), [Path(inspect.getfile(module))]


def page(module: ModuleType) -> str:
    """Return a module's page."""
    room, _, name = module.__name__.rpartition(".")
    shadowed = getattr(sys.modules[room], name) is not module  # the function of this name has the index entry
    directive = f"```{{py:{'current' * shadowed}module}} {module.__name__}\n```"
    head = [f"# `{module.__name__}`", directive, markdown(inspect.getdoc(module))]
    return "\n\n".join([*head, *(entry(module, name) for name in public(module))]) + "\n"


def public(module: ModuleType) -> list[str]:
    """Return the names of `__all__`, or else what the module itself defines."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def entry(module: ModuleType, name: str) -> str:
    """Return one name's entry."""
    value = getattr(module, name)
    if inspect.isclass(value):
        members = [_directive("property", n, markdown(_doc(v)), 4) for n, v in _properties(value)]
        members += [_directive("method", n + _signature(v), markdown(_doc(v)), 4) for n, v in _methods(value)]
        return _directive("class", name + _signature(value), "\n\n".join([markdown(_doc(value)), *members]), 5)
    if callable(value):
        return _directive("function", name + _signature(value), markdown(_doc(value)), 4)
    if inspect.ismodule(value):
        summary, _, _ = (value.__doc__ or "").partition("\n\n")
        return f"`{module.__name__}.{name}`: {markdown(summary)}"
    names = f" of {', '.join(map(_code, value))}" if isinstance(value, dict | tuple) else ""
    return _directive("data", name, f"A `{type(value).__name__}`{names}.", 4)


def _directive(kind: str, signature: str, body: str, colons: int) -> str:
    fence = ":" * colons
    return f"{fence}{{py:{kind}}} {signature}\n{body}\n{fence}"


def _code(x: Any) -> str:
    return f"`{x}`"


def _doc(value: Any) -> str | None:
    """Return the docstring of a function; none where it is the one of its type."""
    doc = inspect.getdoc(value)
    return None if doc == inspect.getdoc(type(value)) and not inspect.isclass(value) else doc


def _signature(value: Any) -> str:
    """Return the parameters and their defaults; types stand in the docstrings and would fill the line."""
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values() if p.name != "self"]
    shown = str(signature.replace(parameters=plain, return_annotation=inspect.Signature.empty))
    return shown if "<" not in shown and "\n" not in shown else "(…)"


def _own(cls: type) -> Iterator[tuple[str, Any]]:
    return ((n, v) for n, v in vars(cls).items() if not n.startswith("_") and getattr(v, "__doc__", None))


def _methods(cls: type) -> list[tuple[str, Any]]:
    return [(n, getattr(cls, n)) for n, v in _own(cls) if inspect.isfunction(v) or isinstance(v, classmethod)]


def _properties(cls: type) -> list[tuple[str, Any]]:
    fields = {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    return [(n, v) for n, v in _own(cls) if isinstance(v, property) and n not in fields]
