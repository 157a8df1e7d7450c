"""Trip counts of HLO's while loops: the compiler's own note, or a counter that the text shows.

XLA's compiled modules carry `known_trip_count`. In a lowered module the trips follow from counters: the condition
compares two elements of the carried tuple, or one with a constant; the body adds a constant to each; and they start at
constants. Anything else is not known (None), never guessed.
"""

import re
from dataclasses import dataclass

from refgrad.cost.hlo.parse import Computation, Instruction, Module

_LIMIT = 64  # how many instructions a scalar may be followed through
_INTEGER = re.compile(r"[su]\d+")
_PASSED_ON = ("copy", "bitcast", "reshape", "convert", "broadcast")


@dataclass(frozen=True)
class Context:
    """The caller of a computation, so that a scalar can be followed through its parameters."""

    module: Module
    computation: str = ""
    caller: Instruction | None = None
    outer: "Context | None" = None

    def at(self, computation: str) -> "Context":
        """The same caller, seen from inside `computation`."""
        return Context(self.module, computation, self.caller, self.outer)

    def into(self, call: Instruction | None) -> "Context":
        """Inside a computation that a call or a `while` runs, argument for parameter; None where they do not match."""
        return Context(self.module, "", call, self)

    @property
    def instructions(self) -> dict[str, Instruction]:
        """The instructions of the present computation."""
        return self.module.computations[self.computation].instructions


def trip_count(loop: Instruction, context: Context) -> int | None:
    """Trips of a `while` in one execution, or None where they cannot be told from the text."""
    noted = re.search(r'"known_trip_count":\{"n":"?(\d+)"?\}', loop.attributes)
    if noted:
        return int(noted.group(1))
    module = context.module
    condition = module.computations[loop.computations("condition")[0]]
    body = _body(loop, module)
    test = condition.instructions[condition.root]
    direction = test.attribute("direction")
    if test.opcode != "compare" or direction is None:  # a fusion in a compiled module has its trips noted, or none
        return None
    left, right = (_counter(_source(name, condition), body, loop, context) for name in test.operands)
    if left is None or right is None:
        return None
    trips = trips_until(direction, left[0] - right[0], left[1] - right[1])
    low, high = _range(condition.operand(test, 0).shape.dtype)
    ends = [] if trips is None else [first + trips * step for first, step in (left, right)]
    return trips if all(low <= end <= high for end in ends) else None


def _body(loop: Instruction, module: Module) -> Computation:
    return module.computations[loop.computations("body")[0]]


def trips_until(direction: str, first: int, step: int) -> int | None:
    """Trips of a counter that goes from `first` by `step` while (counter direction 0); None where it never ends.

    direction: LT, LE, GT, GE or NE.
    """
    limit = 0
    if direction == "NE":
        if not step:
            return None if first else 0
        trips, rest = divmod(-first, step)
        return trips if rest == 0 and trips >= 0 else None
    if direction in ("GT", "GE"):
        first, step = -first, -step
    if direction in ("LE", "GE"):
        limit = 1
    if first >= limit:
        return 0
    return -((first - limit) // step) if step > 0 else None


def _range(dtype: str) -> tuple[int, int]:
    """The least and the greatest value of an integer type, s or u with its bits."""
    bits = int(dtype[1:])
    return (0, 2**bits - 1) if dtype[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _counter(side: Instruction, body: Computation, loop: Instruction, context: Context) -> tuple[int, int] | None:
    """(first value, step) of one side of the loop's test; None where it is neither constant nor so carried."""
    value = _constant(side)
    if value is not None:
        return value, 0
    index = _carried(side)
    if index is None:
        return None
    first, step = _element(loop.operands[0], index, context), _step(body, index)
    return None if first is None or step is None else (first, step)


def _source(name: str, computation: Computation) -> Instruction:
    """The instruction that this one copies, perhaps in a wider integer type."""
    instruction = computation.instructions[name]
    while instruction.opcode in ("copy", "convert"):
        before = computation.operand(instruction, 0)
        if instruction.opcode == "convert" and not _widens(before.shape.dtype, instruction.shape.dtype):
            break
        instruction = before
    return instruction


def _widens(before: str, after: str) -> bool:
    """Return True if the second integer type holds all values of the first: s8 and u8 go into s16, no s into u."""
    if not _INTEGER.fullmatch(before) or not _INTEGER.fullmatch(after):
        return False
    (low, high), (least, greatest) = _range(before), _range(after)
    return least <= low and high <= greatest


def _carried(instruction: Instruction) -> int | None:
    """Return the index of the loop's tuple element that this instruction reads, or None."""
    if instruction.opcode != "get-tuple-element":
        return None
    return int(instruction.attribute("index") or 0)


def _constant(instruction: Instruction) -> int | None:
    if instruction.opcode == "constant" and _INTEGER.fullmatch(instruction.shape.dtype) and not instruction.shape.dims:
        return int(instruction.literal)
    return None


def _step(body: Computation, index: int) -> int | None:
    """The constant that the body adds to carried element `index`; 0 where it hands the element on."""
    root = body.instructions[body.root]
    if root.opcode != "tuple":
        return None
    update = _source(root.operands[index], body)
    if _carried(update) == index:
        return 0
    if update.opcode not in ("add", "subtract"):
        return None
    left, right = (_source(name, body) for name in update.operands)
    if update.opcode == "add" and _carried(left) is None:
        left, right = right, left
    step = _constant(right)
    if _carried(left) != index or step is None:
        return None
    return step if update.opcode == "add" else -step


def _element(name: str, index: int, context: Context) -> int | None:
    """The constant in element `index` of a tuple, followed through calls to where it was made."""
    tuple_ = context.instructions.get(name)
    if tuple_ is not None and tuple_.opcode == "tuple":
        return _scalar(tuple_.operands[index], context)
    if tuple_ is not None and tuple_.opcode == "parameter" and context.caller and context.outer:
        if context.caller.opcode == "while" and _step(_body(context.caller, context.module), index) != 0:
            return None  # it changes from trip to trip
        return _element(context.caller.operands[int(tuple_.literal)], index, context.outer)
    return None


def _scalar(name: str, context: Context) -> int | None:
    """The constant that an instruction yields, through copies and the parameters of calls."""
    for _ in range(_LIMIT):
        instruction = context.instructions[name]
        if instruction.opcode in _PASSED_ON:
            name = instruction.operands[0]
        elif instruction.opcode == "get-tuple-element":
            return _element(instruction.operands[0], int(instruction.attribute("index") or 0), context)
        elif instruction.opcode == "parameter" and context.caller and context.outer:
            name, context = context.caller.operands[int(instruction.literal)], context.outer
        else:
            return _constant(instruction)
    return None
