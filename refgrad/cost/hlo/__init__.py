"""HLO text, and XLA's costs for it in exact integers and in XLA's own float32."""

from refgrad._renamed import old_names
from refgrad.cost.hlo.parse import Computation, HloSyntaxError, Instruction, Module, Shape, parse
from refgrad.cost.hlo.rules import HloWork, UnknownInstruction, work
from refgrad.cost.hlo.types import Conditional, ExactCounts, HloCost, HloRow, Loop
from refgrad.cost.hlo.walk import cost, visit_order, with_runs

__all__ = [
    "Computation",
    "Conditional",
    "ExactCounts",
    "HloCost",
    "HloRow",
    "HloSyntaxError",
    "HloWork",
    "Instruction",
    "Loop",
    "Module",
    "Shape",
    "UnknownInstruction",
    "cost",
    "parse",
    "visit_order",
    "with_runs",
    "work",
]

__getattr__ = old_names(__name__, Pair="ExactCounts", Row="HloRow", Work="HloWork")
