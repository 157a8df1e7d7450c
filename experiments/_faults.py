"""The mutator of `planted_faults.py`: the places of a source file at which one small edit makes another program."""

import ast
import dataclasses
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
JOINED = {ast.And: ast.Or, ast.Or: ast.And}
NEVER_SWAPPED = ("isinstance", "issubclass", "max", "min", "maximum", "minimum", "gcd", "logical_and", "logical_or")
"""Calls whose swapped arguments fail at once or change nothing."""
GUARDS = ("strict", "frozen")  # keywords that change nothing in a program that is right


@dataclasses.dataclass(frozen=True)
class Fault:
    """One edit: the bytes `start` to `end` of the file become `new`; `lines` are those of the statement around it."""

    path: str
    kind: str
    old: str
    new: str
    start: int
    end: int
    lines: range

    def __str__(self) -> str:
        return f"{self.path}:{self.lines.start} {self.kind}: {self.old} → {self.new}"

    def plant(self, root: Path) -> str:
        """Edit the file below `root`; returns its former text."""
        path = root / self.path
        text = path.read_text()
        data = text.encode()
        path.write_bytes(data[: self.start] + self.new.encode() + data[self.end :])
        return text


def draw(root: Path, source: str, number: int, seed: int) -> list[Fault]:
    """Draw faults of the files at or below `source`: each time a kind, then one of its places, all equally likely.

    Raises ValueError where there are fewer places.
    """
    kinds: dict[str, list[Fault]] = defaultdict(list)
    files = [root / source] if source.endswith(".py") else sorted((root / source).rglob("*.py"))
    for fault in (fault for file in files for fault in places(file.read_text(), str(file.relative_to(root)))):
        kinds[fault.kind].append(fault)
    if (known := sum(map(len, kinds.values()))) < number:
        raise ValueError(f"faults is {number}, but {source} has only {known} places for one")
    rng, drawn = random.Random(f"{seed} {source}"), []
    while len(drawn) < number:
        kind = rng.choice(sorted(kind for kind, rest in kinds.items() if rest))
        drawn.append(kinds[kind].pop(rng.randrange(len(kinds[kind]))))
    return drawn


def places(text: str, path: str) -> Iterator[Fault]:
    """Every fault of a file; docstrings, error messages and annotations have none."""
    data = text.encode()
    offsets = [0]
    for line in data.splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line))
    for node, lines in _expressions(ast.parse(text), range(0)):
        start = offsets[node.lineno - 1] + node.col_offset
        end = offsets[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        for kind, edited in _edits(node):
            new = ast.unparse(ast.fix_missing_locations(edited))
            new = new if isinstance(edited, ast.Constant | ast.Call) else f"({new})"
            yield Fault(path, kind, ast.unparse(node), new, start, end, lines)


def _expressions(node: ast.AST, lines: range) -> Iterator[tuple[ast.expr, range]]:
    """The expressions below a node, each with the lines of its statement, or its own below a compound statement."""
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom):
        return
    if isinstance(node, ast.keyword) and node.arg in GUARDS:
        return
    if isinstance(node, ast.stmt):
        lines = range(0) if hasattr(node, "body") else _lines(node)
    if isinstance(node, ast.expr):
        lines = lines or _lines(node)
        yield node, lines
    for field, value in ast.iter_fields(node):
        if field not in ("annotation", "returns", "msg"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _expressions(child, lines)


def _lines(node: ast.stmt | ast.expr) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def _edits(node: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """(kind, the expression that replaces it) for every fault of this very expression."""
    match node:
        case ast.Compare(left, [op, *ops], comparators):
            yield "comparison", ast.Compare(left, [COMPARISONS[type(op)](), *ops], comparators)
        case ast.BinOp(left, op, right) if type(op) in OPERATORS:
            yield "operator", ast.BinOp(left, OPERATORS[type(op)](), right)
            yield "dropped term", left
        case ast.UnaryOp(ast.USub() | ast.Not(), operand):
            yield "dropped sign or not", operand
        case ast.BoolOp(op, [*values, last]):
            yield "and or", ast.BoolOp(JOINED[type(op)](), [*values, last])
            yield "dropped condition", ast.BoolOp(op, values) if values[1:] else values[0]
        case ast.Constant(bool(value)):
            yield "flag", ast.Constant(not value)
        case ast.Constant(int(value)):
            yield "off by one", ast.Constant(value + 1)
        case ast.Constant(float(value)):
            yield "factor", ast.Constant(2 * value or 1.0)
        case ast.IfExp(test, body, orelse):
            yield "swapped branches", ast.IfExp(test, orelse, body)
        case ast.Call(ast.Name(name) | ast.Attribute(attr=name)) if name in NEVER_SWAPPED:
            return
        case ast.Call(func, [first, second, *rest], keywords):
            starred = isinstance(first, ast.Starred) or isinstance(second, ast.Starred)
            if not starred and ast.dump(first) != ast.dump(second):
                yield "swapped arguments", ast.Call(func, [second, first, *rest], keywords)
