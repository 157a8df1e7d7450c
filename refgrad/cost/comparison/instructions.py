"""The items of an HLO module: XLA's figures, instruction by instruction, with the bytes that each moves.

XLA counts a loop's body once and adds up in float32. Both are items of their own here, so that the rest says what is
executed: the items of a module add up to XLA's figures, and those of two modules can be matched run by run.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping

from refgrad.cost.collectives import KINDS
from refgrad.cost.comparison.items import Figures, Item, merged
from refgrad.cost.hlo import HloRow
from refgrad.cost.hlo.parse import Instruction, Module, Shape
from refgrad.cost.primitives.rule import names
from refgrad.cost.scopes import scope_of
from refgrad.cost.xla import XlaCost
from refgrad.jaxpr.programs import is_instrument

ONCE = "loop counted once"
ROUNDING = "float32 sums"
COUNTER = "the scan's own counter and index"
_REMAT = "rematted_computation"
_STILL = frozenset(
    names("after-all bitcast call conditional constant get-tuple-element parameter partition-id replica-id tuple while")
)
_BITS = re.compile(r"[a-z]+(\d+)")


def of_module(answer: XlaCost, counted: Iterable[Item]) -> list[Item]:
    """Return the items of a module, lowered or compiled, of a program whose equations are `counted`.

    An instruction has its equation's part in the program.
    """
    parts = {(item.scope, item.source, item.primitive, item.shapes[-1]): item for item in counted}
    walked = answer.hlo
    fused, counters = _fused(walked.module), set(map(id, walked.counter_rows))
    items: list[Item] = []
    seen: set[str] = set()
    for row in walked.rows:
        found = _items(walked.module, row, parts, inside=row.computation in fused)
        items += (item._replace(part=item.part or COUNTER) for item in found) if id(row) in counters else found
        if row.computation in fused and row.computation not in seen and row.taken:
            seen.add(row.computation)
            parent, instruction = fused[row.computation]
            if parent not in fused:
                whole = HloRow(instruction, parent, instruction.op_name, 0, 0, row.times)
                items += _items(walked.module, whole, parts, inside=False)
    return merged([*items, *_rounding(answer)])


def _fused(module: Module) -> dict[str, tuple[str, Instruction]]:
    """Return the computations that are the inside of a fusion, with the fusion and the computation that holds it."""
    return {
        inner: (computation.name, instruction)
        for computation in module.computations.values()
        for instruction in computation.instructions.values()
        if instruction.opcode == "fusion"
        for inner in instruction.computations("calls")
    }


def _items(module: Module, row: HloRow, equations: Mapping[tuple, Item], inside: bool) -> Iterator[Item]:
    operands = module.computations[row.computation].instructions
    shapes = [operands[name].shape for name in row.instruction.operands if name in operands]
    moved = 0 if inside or not row.taken else _moved(row.instruction, shapes)
    each = Figures(row.flops, row.transcendentals, moved, collectives=_exchanged(row.instruction, shapes))
    if not any(each):
        return
    scope = scope_of(row.scope)
    source = next((line for line in module.lines_of(row.instruction) if not is_instrument(line)), "")
    results = _type(row.instruction.shape)
    eqn = equations.get((scope, source, row.primitive, results[results.find("[") :]))
    item = Item(
        scope,
        source,
        row.instruction.opcode,
        " ".join(map(_type, shapes)),
        results,
        eqn.part if eqn else "",
        eqn.product if eqn else "",
        "transpose(" in row.scope,
        _REMAT in row.scope or (eqn is not None and eqn.recomputed),
        row.times,
        row.times,
        each,
    )
    if row.times:
        yield item
    if row.times != 1:
        once = each if not row.times else each.times(-1)
        yield item._replace(part=ONCE, runs=abs(1 - row.times), each=once)


def _moved(instruction: Instruction, operands: list[Shape]) -> int:
    """Return the bytes that an instruction reads and writes; of a slice and of an update, only the part concerned."""
    opcode, result = instruction.opcode, _bytes(instruction.shape)
    if opcode in _STILL:
        return 0
    if opcode == "slice":
        return 2 * result
    if opcode in ("dynamic-slice", "gather"):
        return 2 * result + sum(map(_bytes, operands[1:2]))
    if opcode == "dynamic-update-slice":
        return 2 * _bytes(operands[1]) + sum(map(_bytes, operands[2:3]))
    return result + sum(map(_bytes, operands))


def _exchanged(instruction: Instruction, operands: list[Shape]) -> int:
    kind = instruction.opcode.removesuffix("-start")
    if kind not in KINDS:
        return 0
    return _bytes(instruction.shape) if kind == "all-gather" else sum(map(_bytes, operands))


def _rounding(answer: XlaCost) -> Iterator[Item]:
    """Yield the errors of XLA's float32 sums, by the walk's own replay."""
    walked = answer.hlo
    flops, transcendentals = map(round, walked.replayed)
    each = Figures(flops - walked.flops, transcendentals - walked.transcendentals)
    if any(each):
        yield Item("", "", ROUNDING, "", "", ROUNDING, "", False, False, 1, 1, each)


def _bytes(shape: Shape) -> int:
    return sum(math.ceil(leaf.elements * _bits(leaf.dtype) / 8) for leaf in shape.leaves())


def _bits(dtype: str) -> int:
    found = _BITS.match(dtype)
    return int(found.group(1)) if found else 8


def _type(shape: Shape) -> str:
    return "+".join(f"{leaf.dtype}[{','.join(map(str, leaf.dims))}]" for leaf in shape.leaves())
