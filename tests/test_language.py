"""Docstrings, comments, messages, rows of data and pages in plain English; a docstring on every public name."""

import ast
import re
import tokenize
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("refgrad", "experiments", "docs")
OPENING = re.compile(r"\W*(What|Whether|How|Where|Which|Of|Those|As|Why|That|Its)\b")
NEGATION = re.compile(r"\b(is|are) no (?!longer\b|more\b)")
NAMED = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Source(NamedTuple):
    """One file of the package."""

    place: str
    text: str
    tree: ast.Module
    nodes: list[ast.AST]


def read(text: str, place: str = "planted.py") -> Source:
    """Parse one file."""
    tree = ast.parse(text)
    return Source(place, text, tree, list(ast.walk(tree)))


@cache
def sources() -> list[Source]:
    """The files whose language is checked."""
    paths = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    places = [(path, path.relative_to(ROOT).as_posix()) for path in paths]
    return [read(path.read_text(), place) for path, place in places]


def docstrings(source: Source) -> Iterator[tuple[int, str]]:
    """Every docstring with its line, those of attributes too."""
    for node in source.nodes:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def comments(source: Source) -> Iterator[tuple[int, str]]:
    """Every comment with its line."""
    for token in tokenize.generate_tokens(StringIO(source.text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def strings(nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """Every string among the nodes with its line, a formatted one with `…` for each of its values."""
    for part in nodes:
        if isinstance(part, ast.JoinedStr):
            pieces = [str(piece.value) if isinstance(piece, ast.Constant) else "…" for piece in part.values]
            yield part.lineno, "".join(pieces)
        elif isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.lineno, part.value


def shown(node: ast.AST) -> list[ast.expr]:
    """The arguments of an exception that is raised or of `print`, and the template of `format`."""
    call = node.exc if isinstance(node, ast.Raise) else node
    if not isinstance(call, ast.Call):
        return []
    if isinstance(node, ast.Raise) or (isinstance(call.func, ast.Name) and call.func.id == "print"):
        return call.args
    return [call.func.value] if isinstance(call.func, ast.Attribute) and call.func.attr == "format" else []


def messages(source: Source) -> Iterator[tuple[int, str]]:
    """The beginning of every string that is raised, printed or formatted, with its line."""
    for node in source.nodes:
        for expression in shown(node):
            yield from islice(strings(ast.walk(expression)), 1)


def openings(source: Source) -> list[str]:
    """Docstrings and messages that open with a forbidden word."""
    texts = [*docstrings(source), *messages(source)]
    return [f"{source.place}:{line}: {text[:60]}" for line, text in texts if OPENING.match(text)]


def negations(source: Source) -> list[str]:
    """Docstrings, comments and strings that say "is no X" for "is not an X"."""
    texts = [*strings(source.nodes), *comments(source)]
    return [f"{source.place}:{line}: {text[:60]}" for line, text in texts if NEGATION.search(" ".join(text.split()))]


def rows(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every string below a value of a TOML file with its keys, but the headings of documents, which are quoted."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list | dict):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from rows(part, f"{path}.{key}") if key != "place" else ()


def tables() -> list[tuple[str, str]]:
    """Every string of the TOML files of the package, such as the claims' rows, with its place."""
    paths = sorted((ROOT / "refgrad").rglob("*.toml"))
    return [row for path in paths for row in rows(tomllib.loads(path.read_text()), path.relative_to(ROOT).as_posix())]


def pages() -> list[tuple[str, str]]:
    """Every paragraph of the repository's pages and of the report's templates, with its file."""
    paths = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "refgrad").rglob("*.j2")]
    texts = [(path.relative_to(ROOT).as_posix(), path.read_text()) for path in sorted(paths)]
    return [(place, paragraph) for place, text in texts for paragraph in text.split("\n\n")]


class Public(NamedTuple):
    """A public module, class, function or method."""

    name: str
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    owner: ast.ClassDef | None = None


def public(source: Source) -> Iterator[Public]:
    """A module, its public classes, functions and methods, without overloads and nested functions."""
    yield Public(source.place, source.tree)

    def below(body: list[ast.stmt], name: str, owner: ast.ClassDef | None) -> Iterator[Public]:
        for node in body:
            if isinstance(node, NAMED) and not node.name.startswith("_") and not decorated(node, "overload", "setter"):
                yield Public(f"{name}{node.name}", node, owner)
                if isinstance(node, ast.ClassDef):
                    yield from below(node.body, f"{name}{node.name}.", node)

    yield from below(source.tree.body, f"{source.place}::", None)


def decorated(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, *names: str) -> bool:
    """Return True for a decorator of one of these names."""
    return any(ast.unparse(decorator).split(".")[-1] in names for decorator in node.decorator_list)


def bases(node: ast.ClassDef) -> list[str]:
    """The names of a class's bases, without modules and parameters."""
    return [ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases]


def missing(files: list[Source]) -> list[str]:
    """Public names without a docstring, but for methods that a base class documents."""
    names = [name for source in files for name in public(source)]
    classes = [name.node for name in names if isinstance(name.node, ast.ClassDef)]

    def inherited(method: str, owner: ast.ClassDef) -> bool:
        found = [node for node in classes if node.name in bases(owner) and node is not owner]
        documented = [node for base in found for node in base.body if isinstance(node, NAMED) and node.name == method]
        return any(map(ast.get_docstring, documented)) or any(inherited(method, base) for base in found)

    bare = [name for name in names if not ast.get_docstring(name.node)]
    return [n.name for n in bare if n.owner is None or not inherited(n.name.rpartition(".")[2], n.owner)]


def test_no_docstring_or_message_opens_with_a_forbidden_word():
    assert [fault for source in sources() for fault in openings(source)] == []


def test_nothing_is_no_thing():
    assert [fault for source in sources() for fault in negations(source)] == []


def test_the_rows_and_pages_are_plain_english():
    assert len(tables()) > 800 and len(pages()) > 800
    assert [row for row in tables() if OPENING.match(row[1])] == []
    assert [text for text in [*tables(), *pages()] if NEGATION.search(" ".join(text[1].split()))] == []


def test_every_public_name_has_a_docstring():
    assert missing(sources()) == []


OPENED = {
    "docstring of a module": '"""What it is."""',
    "docstring of a private function": 'def _f():\n    """Whether it holds."""',
    "docstring of a method": 'class A:\n    def f(self):\n        """\n        Of the last."""',
    "docstring of an attribute": 'class A:\n    x: int\n    """How many."""',
    "message": "raise ValueError('Why not?')",
    "formatted message": "raise ValueError(f'Where {x} is 1')",
    "line that is printed": "print('That is all')",
    "template": "'As {}'.format(1)",
}
NEGATED = {
    "docstring, across lines": '"""A file that is\nno file."""',
    "comment": "x = 1  # ids are no numbers",
    "message": "raise ValueError(f'{x} is no number')",
    "table of messages": "M = {'a': 'they are no rows'}",
}
BARE = {
    "module": "x = 1",
    "function": '"""M."""\ndef f(): ...',
    "class": '"""M."""\nclass A: ...',
    "method": '"""M."""\nclass A:\n    """A."""\n    def f(self): ...',
    "method of a base without docstring": '"""M."""\nclass _B:\n    def f(self): ...\nclass A(_B):\n    """A."""\n'
    "    def f(self): ...",
}
RIGHT = '''"""The mean of x. It is no longer a sum."""

class A:
    """A reader."""

    def read(self):
        """Return what lies there."""

class B(A):
    """A reader of text."""

    def read(self):
        def inner(): ...

    def __len__(self): ...

    def _private(self): ...

raise ValueError(f"{x} is not what it was: as before")
'''


@pytest.mark.parametrize("text", OPENED.values(), ids=OPENED)
def test_a_planted_opening_is_found(text):
    assert openings(read(text))


@pytest.mark.parametrize("text", NEGATED.values(), ids=NEGATED)
def test_a_planted_negation_is_found(text):
    assert negations(read(text))


@pytest.mark.parametrize("text", BARE.values(), ids=BARE)
def test_a_planted_gap_is_found(text):
    assert missing([read(text)])


def test_a_planted_row_is_found():
    data = tomllib.loads("[[claims]]\nplace = 'How it works'\n[[claims.checks]]\nsays = 'Whether x'\nsizes = [1, 2]")
    assert list(rows(data, "file")) == [("file.claims.0.checks.0.says", "Whether x")]


def test_plain_english_passes():
    source = read(RIGHT)
    assert openings(source) == negations(source) == missing([source]) == []
