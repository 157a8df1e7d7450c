"""HLO text, and XLA's costs for it in exact integers and in XLA's own float32."""

from refgrad.cost.hlo.parse import Computation, HloSyntaxError, Instruction, Module, Shape, parse
from refgrad.cost.hlo.rules import UnknownInstruction, Work, work
from refgrad.cost.hlo.types import Conditional, HloCost, Loop, Pair, Row
from refgrad.cost.hlo.walk import cost, visit_order, with_runs

__all__ = [
    "Computation",
    "Conditional",
    "HloCost",
    "HloSyntaxError",
    "Instruction",
    "Loop",
    "Module",
    "Pair",
    "Row",
    "Shape",
    "UnknownInstruction",
    "Work",
    "cost",
    "parse",
    "visit_order",
    "with_runs",
    "work",
]
