"""How often a while loop of HLO runs: what the compiler noted, or a counter that can be read off the text.

XLA's compiled modules carry `known_trip_count`. In a lowered module the trips follow from a counter: the condition
compares one element of the carried tuple with a constant, the body adds a constant to it, and its first value is a
constant. Anything else is not known (None), never guessed.
"""

import re
from dataclasses import dataclass

from refgrad.cost.hlo.parse import Computation, Instruction, Module

_LIMIT = 64  # how many instructions a scalar may be followed through
_PASSED_ON = ("copy", "bitcast", "reshape", "convert", "broadcast")


@dataclass(frozen=True)
class Context:
    """Where a computation was called from, so that a scalar can be followed through its parameters."""

    module: Module
    computation: str = ""
    caller: Instruction | None = None
    outer: "Context | None" = None

    def at(self, computation: str) -> "Context":
        """The same caller, seen from inside `computation`."""
        return Context(self.module, computation, self.caller, self.outer)

    def into(self, call: Instruction | None) -> "Context":
        """Inside a computation that `call` calls, argument for parameter; None where arguments are not passed so."""
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
    body = module.computations[loop.computations("body")[0]]
    test = _comparison(condition, module)
    if test is None:
        return None
    direction, index, bound = test
    step = _step(body, index)
    first = _element(loop.operands[0], index, context)
    limit = bound if isinstance(bound, int) else _invariant(bound[0], body, loop, context)
    if not step or first is None or limit is None:
        return None
    return _trips(direction, first, limit, step)


def _trips(direction: str, first: int, limit: int, step: int) -> int | None:
    """Trips of a counter that goes from `first` by `step` while (counter direction limit); None where it never ends."""
    if direction == "NE":
        trips, rest = divmod(limit - first, step)
        return trips if rest == 0 and trips >= 0 else None
    if direction in ("GT", "GE"):
        first, limit, step = -first, -limit, -step
    if direction in ("LE", "GE"):
        limit += 1
    if first >= limit:
        return 0
    return -((first - limit) // step) if step > 0 else None


def _comparison(condition: Computation, module: Module) -> tuple[str, int, "int | tuple[int]"] | None:
    """(direction, carried element, bound) of the loop's test; the bound is a constant or (a carried element,)."""
    root = condition.instructions[condition.root]
    if root.opcode == "fusion":  # compiled: one compare, wrapped
        return None
    if root.opcode != "compare":
        return None
    left, right = (condition.instructions[name] for name in root.operands)
    index = _carried(left)
    bound = _constant(right)
    if bound is None and (other := _carried(right)) is not None:
        bound = (other,)
    direction = root.attribute("direction")
    return None if index is None or bound is None or direction is None else (direction, index, bound)


def _carried(instruction: Instruction) -> int | None:
    """Which element of the loop's tuple this instruction reads."""
    if instruction.opcode != "get-tuple-element":
        return None
    return int(instruction.attribute("index") or 0)


def _constant(instruction: Instruction) -> int | None:
    if instruction.opcode == "constant" and re.fullmatch(r"-?\d+", instruction.literal.strip()):
        return int(instruction.literal)
    return None


def _step(body: Computation, index: int) -> int | None:
    """The constant that the body adds to carried element `index`."""
    root = body.instructions[body.root]
    if root.opcode != "tuple":
        return None
    update = body.instructions[root.operands[index]]
    if update.opcode not in ("add", "subtract"):
        return None
    left, right = (body.instructions[name] for name in update.operands)
    if update.opcode == "add" and _carried(left) is None:
        left, right = right, left
    step = _constant(right)
    if _carried(left) != index or step is None:
        return None
    return step if update.opcode == "add" else -step


def _invariant(index: int, body: Computation, loop: Instruction, context: Context) -> int | None:
    """First value of carried element `index`, where the body hands it on unchanged."""
    root = body.instructions[body.root]
    if root.opcode != "tuple" or _carried(body.instructions[root.operands[index]]) != index:
        return None
    return _element(loop.operands[0], index, context)


def _element(name: str, index: int, context: Context) -> int | None:
    """The constant in element `index` of a tuple, followed through calls to where it was made."""
    tuple_ = context.instructions.get(name)
    if tuple_ is not None and tuple_.opcode == "tuple":
        return _scalar(tuple_.operands[index], context)
    if tuple_ is not None and tuple_.opcode == "parameter" and context.caller and context.outer:
        return _element(context.caller.operands[int(tuple_.literal)], index, context.outer)
    return None


def _scalar(name: str, context: Context) -> int | None:
    """The constant that an instruction yields, through copies and the parameters of calls."""
    for _ in range(_LIMIT):
        instruction = context.instructions[name]
        if instruction.opcode in _PASSED_ON:
            name = instruction.operands[0]
        elif instruction.opcode == "parameter" and context.caller and context.outer:
            name, context = context.caller.operands[int(instruction.literal)], context.outer
        else:
            return _constant(instruction)
    return None
