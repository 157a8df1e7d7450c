"""Only `refgrad/jaxpr` loops over equations, names a structured primitive, or asks for the version of JAX."""

import ast
from pathlib import Path

import pytest

import refgrad
from refgrad.jaxpr.calls import TABLE

ROOT = Path(refgrad.__file__).parent
FILES = [path for path in sorted(ROOT.rglob("*.py")) if "jaxpr" not in path.relative_to(ROOT).parts]
# words of configurations, of HLO's text, and of the report's properties, which are not primitives there
ELSEWHERE = {"scan", "while", "call", "jit", "shard_map"}
FORBIDDEN = {"eqns", "jaxprs_in_params", "__version__", "version_info"}


def named(source: str) -> set[str]:
    """Return the forbidden attributes, imports and primitives' names in a file's code."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    imported = {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    words = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    asked = {"hasattr" for node in nodes if _asks_jax(node)}
    return asked | (FORBIDDEN & (attributes | imported)) | ((set(TABLE) - ELSEWHERE) & words)


def _asks_jax(node: ast.AST) -> bool:
    """Return True for `hasattr(jax.…, …)`: a question about the version in disguise."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hasattr"):
        return False
    root = node.args[0]
    while isinstance(root, ast.Attribute):
        root = root.value
    return isinstance(root, ast.Name) and root.id in ("jax", "jnp", "lax")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_other_room_reads_programs(path):
    assert not named(path.read_text())


@pytest.mark.parametrize(
    "line",
    [
        "for eqn in program.eqns: pass",
        "from jax.extend.core import jaxprs_in_params",
        "newer = jax.__version__ > '0.11'",
        "tanh = 1 if hasattr(jax.lax, 'one_minus_square') else 2",
        "inner = eqn.primitive.name in ('custom_vjp_call', 'remat2')",
    ],
)
def test_a_breach_is_seen(line):
    assert named(line)
