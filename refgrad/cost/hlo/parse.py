"""HLO text → plain dataclasses. The only place in the project that parses HLO.

Reads both dialects that JAX prints: the lowered module (`Lowered.as_text(dialect="hlo")`, names without `%`) and the
compiled one (`Compiled.as_text()`, names with `%`, a signature behind each computation). Operand shapes are not
printed in either, so they are looked up by name. Attributes stay text until a rule asks for one.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod


class HloSyntaxError(ValueError):
    """A line of HLO text that this parser does not understand; the message holds the line."""


@dataclass(frozen=True, slots=True)
class Shape:
    """An array's element type and dimensions, or the parts of a tuple (`parts` is None for an array)."""

    dtype: str
    dims: tuple[int, ...] = ()
    parts: "tuple[Shape, ...] | None" = None

    @property
    def elements(self) -> int:
        """Number of elements of an array (a dynamic dimension counts with its bound); 0 for a token."""
        return 0 if self.dtype == "token" else prod(self.dims)

    def leaves(self) -> "Iterator[Shape]":
        """The arrays of a tuple at any depth, or the array itself."""
        if self.parts is None:
            yield self
        else:
            for part in self.parts:
                yield from part.leaves()


@dataclass(frozen=True)
class Instruction:
    """One line of a computation. `operands` are names; for `parameter` and `constant`, the text in parentheses."""

    name: str
    shape: Shape
    opcode: str
    operands: tuple[str, ...]
    literal: str
    attributes: str

    def attribute(self, key: str) -> str | None:
        """The text of one attribute without its braces or quotes, or None where it is absent."""
        found = re.search(rf'(?:^|, ){key}=(\{{|")?', self.attributes)
        if found is None:
            return None
        start, opening = found.end(), found.group(1)
        if opening == "{":
            return self.attributes[start : _closing(self.attributes, start)]
        if opening == '"':
            return _STRING_END.match(self.attributes, start).group(1)  # pyright: ignore[reportOptionalMemberAccess]
        return re.compile(r"[^,\s]+").match(self.attributes, start).group()  # pyright: ignore[reportOptionalMemberAccess]

    def numbers(self, key: str) -> tuple[int, ...]:
        """An attribute that is a list of integers, such as `lhs_contracting_dims={1,2}`; empty where absent."""
        return tuple(map(int, re.findall(r"\d+", self.attribute(key) or "")))

    def computations(self, key: str) -> tuple[str, ...]:
        """Names of the computations that an attribute calls; empty where it is absent."""
        return tuple(re.findall(r"[\w.\-]+", self.attribute(key) or ""))

    @cached_property
    def op_name(self) -> str:
        """The path of named scopes and primitive that JAX left in the metadata; "" without debug information."""
        found = _OP_NAME.search(self.attributes)
        return found.group(1).replace('\\"', '"') if found else ""


@dataclass(frozen=True)
class Computation:
    """Instructions in the order of the text; the root's name."""

    name: str
    instructions: dict[str, Instruction]
    root: str

    def operand(self, instruction: Instruction, index: int) -> Instruction:
        """The instruction that yields operand number `index`."""
        return self.instructions[instruction.operands[index]]


@dataclass(frozen=True)
class Module:
    """A whole HLO module: its computations by name, the entry's name, and into how many devices it is split."""

    name: str
    computations: dict[str, Computation]
    entry: str
    partitions: int = 1
    lines: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """Stack frame → the lines of code that it stands for, `file:line`, from the innermost to the outermost."""

    def lines_of(self, instruction: Instruction) -> tuple[str, ...]:
        """The lines of code that an instruction comes from, the innermost first; none without debug information."""
        found = _FRAME.search(instruction.attributes)
        return self.lines.get(int(found.group(1)), ()) if found else ()


_OP_NAME = re.compile(r'metadata=\{(?:[^"}]|"(?:[^"\\]|\\.)*")*?op_name="((?:[^"\\]|\\.)*)"')
_FRAME = re.compile(r"\bstack_frame_id=(\d+)")
_FILE = re.compile(r'^(\d+) "(.*)"$', re.MULTILINE)
_LOCATION = re.compile(r"^(\d+) \{file_name_id=(\d+) .*?\bline=(\d+)", re.MULTILINE)
_STACK = re.compile(r"^(\d+) \{file_location_id=(\d+) parent_frame_id=(\d+)\}", re.MULTILINE)
_STRING_END = re.compile(r'((?:[^"\\]|\\.)*)"')
_COMMENT = re.compile(r"/\*.*?\*/")
_HEADER = re.compile(r"^(ENTRY\s+)?%?([\w.\-]+)(?:\s+\(.*\)\s*->.*)?\s*(?:,[^{]*)?\{\s*$")
_LINE = re.compile(r"^\s*(ROOT\s+)?%?([\w.\-]+) = ")
_OPCODE = re.compile(r" ([a-z][a-z0-9\-]*)\(")
_ARRAY = re.compile(r"([a-z]\w*)\[([^\]]*)\]")
_NAMES = re.compile(r"%([\w.\-]+)")
_PUNCTUATION = re.compile(r'"(?:[^"\\]|\\.)*"|[(){}]')


def parse(text: str) -> Module:
    """Parse the text of one HLO module.

    Raises HloSyntaxError where a line inside a computation has another form, or where the module has no entry.
    """
    computations: dict[str, Computation] = {}
    entry, header, root, body = "", "", "", None
    for line in text.splitlines():
        if body is None:
            found = _HEADER.match(line)
            if found and not line.startswith("HloModule"):
                header, root, body = found.group(2), "", {}
                entry = header if found.group(1) else entry
        elif line.startswith("}"):
            computations[header], body = Computation(header, body, root), None
        elif line.strip():
            is_root, instruction = _instruction(line)
            body[instruction.name] = instruction
            root = instruction.name if is_root else root
    if not entry:
        raise HloSyntaxError("no ENTRY computation in this text: is it HLO (dialect='hlo'), not StableHLO?")
    name = re.match(r"HloModule\s+([^\s,]+)", text)
    partitions = re.match(r"HloModule.*\bnum_partitions=(\d+)", text)
    devices = int(partitions.group(1)) if partitions else 1
    return Module(name.group(1) if name else "", computations, entry, devices, _lines(text))


def _lines(text: str) -> dict[int, tuple[str, ...]]:
    """Every stack frame with its lines, from the tables at the head of the text."""
    _, _, after = text.partition("\nFileNames\n")
    names, _, rest = after.partition("\nFunctionNames\n")
    files = {n: name for n, name in _FILE.findall(names)}
    places = {n: f"{files.get(file, '')}:{line}" for n, file, line in _LOCATION.findall(rest)}
    lines: dict[int, tuple[str, ...]] = {}
    for n, place, parent in _STACK.findall(rest):  # a frame's parent, its caller, stands before it
        lines[int(n)] = (places.get(place, ""), *(lines.get(int(parent), ()) if parent != n else ()))
    return lines


def _instruction(line: str) -> tuple[bool, Instruction]:
    text = _COMMENT.sub("", line) if "/*" in line else line
    head = _LINE.match(text)
    if head is None:
        raise HloSyntaxError(f"not an HLO instruction: {line.strip()[:200]!r}")
    shape, end = _shape(text, head.end())
    opcode = _OPCODE.match(text, end)
    if opcode is None:
        raise HloSyntaxError(f"no opcode in the HLO line {line.strip()[:200]!r}")
    close = _closing(text, opcode.end())
    inside = text[opcode.end() : close]
    name, kind = head.group(2), opcode.group(1)
    operands = () if kind in ("constant", "parameter") else _operands(inside)
    return bool(head.group(1)), Instruction(name, shape, kind, operands, inside, text[close + 1 :])


def _operands(inside: str) -> tuple[str, ...]:
    if "%" in inside:
        return tuple(_NAMES.findall(inside))
    return tuple(part.strip() for part in inside.split(",")) if inside else ()


def _shape(text: str, at: int) -> tuple[Shape, int]:
    """The shape that starts at `at`, and where it ends (behind its layout)."""
    if text[at] == "(":
        close = _closing(text, at + 1)
        return Shape("tuple", parts=tuple(_parts(text, at + 1, close))), close + 1
    array = _ARRAY.match(text, at)
    if array is None:
        raise HloSyntaxError(f"no shape at {text[at : at + 60]!r}")
    dims = tuple(int(d.strip().removeprefix("<=")) for d in array.group(2).split(",") if d.strip())
    end = array.end()
    if text[end : end + 1] == "{":
        end = _closing(text, end + 1) + 1
    return Shape(array.group(1), dims), end


def _parts(text: str, at: int, close: int) -> Iterator[Shape]:
    while at < close:
        part, at = _shape(text, at)
        yield part
        while at < close and text[at] in ", ":
            at += 1


def _closing(text: str, start: int) -> int:
    """Return the position of the bracket that closes the one just before `start`; quoted text is skipped."""
    depth = 1
    for found in _PUNCTUATION.finditer(text, start):
        mark = found.group()
        depth += (mark in "({") - (mark in ")}") if len(mark) == 1 else 0
        if depth == 0:
            return found.start()
    raise HloSyntaxError(f"a bracket is never closed in {text.strip()[:200]!r}")
