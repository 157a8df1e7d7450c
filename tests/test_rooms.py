"""No room imports a private name of another; the root's helpers (`refgrad._text` and the like) are for all rooms."""

import ast
from pathlib import Path

import pytest

import refgrad

ROOT = Path(refgrad.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))


def borrowed(source: str, room: str) -> list[str]:
    """Return the private names that a file of a room imports from other rooms."""
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) and node.module]
    names = [f"{node.module}.{alias.name}".split(".") for node in imports for alias in node.names]
    others = [name for name in names if name[0] == "refgrad" and len(name) > 2 and name[1] != room]
    return [".".join(name) for name in others if any(part.startswith("_") for part in name[2:])]


def test_no_private_name_of_another_room():
    places = {path.relative_to(ROOT): path.read_text() for path in FILES}
    assert {str(place): names for place, text in places.items() if (names := borrowed(text, place.parts[0]))} == {}


@pytest.mark.parametrize("line", ["from refgrad.ops._check import check_args", "from refgrad.ops.fused import _cudnn"])
def test_a_breach_is_seen(line):
    assert borrowed(line, "models") and not borrowed(line, "ops")


def test_helpers_of_the_root_are_for_all():
    assert not borrowed("from refgrad._text import table", "models")
