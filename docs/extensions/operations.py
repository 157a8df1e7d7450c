"""A page for each operation, made from its file and its data; those of the course have an exercise.

The course is the order of the toctree in course/index.md.
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pictures
from docstrings import escaped, markdown
from exercises import exercise

from refgrad.claims import DOCUMENTS
from refgrad.ops import TABLE

LABEL = re.compile(r"(?:^|(?<=\s))(Forward\.|Derivation\.|Kept:|Cost:|Source:)\s")


def pages(folder: Path) -> Iterator[tuple[str, Callable[[], str], list[Path]]]:
    """Yield each page as its path, what makes it, and the files that it is made from."""
    index = folder / "course" / "index.md"
    course = re.findall(r"^/operations/(\S+)$", index.read_text(encoding="utf-8"), re.MULTILINE)
    for name, spec in TABLE.items():
        source = Path(inspect.getfile(_module(spec)))
        yield f"operations/{name}.md", partial(page, spec, name in course, folder / "operations"), [source, index]
    rest = [name for name in TABLE if name not in course]
    yield "operations/index.md", partial(contents, rest), [index]


def contents(names: list[str]) -> str:
    """Return the page that lists the operations that are not in the course."""
    entries = "\n".join(f"/operations/{name}" for name in names)
    return (
        "# Every other operation\n\nDerived in the same way: what the five documents use beside GPT-2, and under "
        f"`fused` the same mathematics in fewer bytes and less time.\n\n```{{toctree}}\n{entries}\n```\n"
    )


def page(spec: Any, taught: bool, folder: Path) -> str:
    """Return an operation's page, and draw its pictures into `folder`."""
    module = _module(spec)
    parts = dict(sections(inspect.getdoc(module) or ""))
    title, _, formula = parts.pop("").partition(":")
    file = module.__name__.replace(".", "/") + ".py"
    lines = [f"# `{spec.name}`: {escaped(' '.join(title.split()))}", markdown(formula.strip())]
    lines += [f"File: `{file}`. In the shell: `refgrad verify --op {spec.name}`."]
    lines += [f"## Forward\n\n{markdown(text)}" for label, text in parts.items() if label == "Forward."]
    lines += [f"## Derivation\n\n{markdown(parts['Derivation.'])}"] if "Derivation." in parts else []
    lines += [f"## Rule\n\n```py\n{_rule(module)}\n```"] if hasattr(module, "_bwd") else []
    lines += [f"## What is kept\n\n{markdown(parts['Kept:'])}"] if "Kept:" in parts else []
    lines += [f"## Cost\n\n{markdown(parts.get('Cost:', ''))}\n\n{costs(spec)}"]
    lines += [f"## Picture\n\n{pictures.jacobians(spec, folder)}", exercise(spec)] if taught else []
    lines += [f"## Source\n\n{markdown(parts['Source:'])}\n\n{_cited(parts['Source:'])}"] if "Source:" in parts else []
    return "\n\n".join(filter(None, lines)) + "\n"


def sections(docstring: str) -> Iterator[tuple[str, str]]:
    """Yield the parts of a docstring: what precedes any label, then each label with its text."""
    head, *rest = LABEL.split(docstring)
    yield "", head
    yield from zip(rest[::2], rest[1::2], strict=True)


def costs(spec: Any) -> str:
    """Return an operation's costs as a table of polynomials."""
    rows = [
        ("forward, FLOPs", spec.forward.flops),
        ("forward, transcendentals", spec.forward.transcendentals),
        ("backward, FLOPs", spec.backward.flops),
        ("backward, transcendentals", spec.backward.transcendentals),
        ("backward, FLOPs as published", spec.published_flops),
        *((f"difference: {cause}", term) for cause, term in spec.adjustments.items()),
        ("bytes kept", spec.residuals),
    ]
    table = "\n".join(f"| {escaped(name)} | `{_polynomial(value)}` |" for name, value in rows)
    symbols = "Symbols: [refgrad.symbols](/how-it-works.md#symbols)."
    return f"| | |\n|---|---|\n{table}\n\n{symbols}"


def _polynomial(value: Any) -> str:
    return str(value).replace("**2", "²").replace("**3", "³").replace("*", "·")


def _module(spec: Any) -> ModuleType:
    return sys.modules[spec.op.fun.__module__]


def _rule(module: ModuleType) -> str:
    """Return the source of the backward pass, without its scope's decorator."""
    return re.sub(r"^@.*\n", "", inspect.getsource(module._bwd), flags=re.MULTILINE).rstrip()


def _cited(source: str) -> str:
    names = [name for name in DOCUMENTS if re.search(rf"\b{name}\b", source)]
    links = ", ".join(f"[{name}: {DOCUMENTS[name].title}](/documents/{name}.md)" for name in names)
    return f"Judged: {links}" if links else ""
