"""The differences between a program's equations and the instructions that the lowering makes of them."""

from collections.abc import Iterator

from refgrad.cost.comparison.items import Figures, Item, summed
from refgrad.cost.comparison.naming import Difference
from refgrad.cost.comparison.program import Program
from refgrad.cost.folding import OPCODES

_OPCODES = {**OPCODES, "dot_general": "dot", "broadcast_in_dim": "broadcast", "conv_general_dilated": "convolution"}
_PREFIXES = {"reduce_": "reduce", "scatter": "scatter", "integer_pow": "multiply"}


def lowering_differences(program: Program) -> list[Difference]:
    """Return the causes of XLA's figures of the lowered program, and the bytes of its instructions by opcode."""
    causes = [
        Difference(cause.name, "", "", "", "", Figures(cause.flops, cause.transcendentals))
        for cause in program.lowering
    ]
    return [*causes, *_moved(program)]


def _moved(program: Program) -> Iterator[Difference]:
    """Yield the bytes of the instructions of each opcode, less those of the equations that become them."""
    before, after = (
        summed(
            (_opcode(item), Figures(bytes=item.figures.bytes, collectives=item.figures.collectives))
            for item in program.stages[stage]
        )
        for stage in ("counted", "lowered")
    )
    for opcode in dict.fromkeys((*before, *after)):
        change = after.get(opcode, Figures()).minus(before.get(opcode, Figures()))
        yield Difference(f"lowered: {opcode}", "", "", "", "", change)


def _opcode(item: Item) -> str:
    name = item.primitive
    if name in _OPCODES:
        return _OPCODES[name]
    return next(
        (opcode or name.replace("_", "-") for start, opcode in _PREFIXES.items() if name.startswith(start)), name
    )
