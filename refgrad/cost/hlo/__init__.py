"""HLO text, and XLA's costs for it in exact integers and in XLA's own float32."""

from refgrad._renamed import old_names
from refgrad.cost.hlo.rules import HloWork
from refgrad.cost.hlo.types import Conditional, ExactCounts, HloCost, HloRow, Loop
from refgrad.cost.hlo.walk import cost

__all__ = ["Conditional", "ExactCounts", "HloCost", "HloRow", "HloWork", "Loop", "cost"]

__getattr__ = old_names(__name__, Pair="ExactCounts", Row="HloRow", Work="HloWork")
