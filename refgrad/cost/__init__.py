"""What does this computation cost, forward and backward, with no FLOP unexplained?"""

from refgrad.cost.count import count, count_backward
from refgrad.cost.reconcile import Reconciliation, Unexplained, reconcile
from refgrad.cost.types import Cost, Count, Site
from refgrad.cost.walk import UnknownCost
from refgrad.cost.xla import XlaCost, xla, xla_backward

__all__ = [
    "Cost",
    "Count",
    "Reconciliation",
    "Site",
    "Unexplained",
    "UnknownCost",
    "XlaCost",
    "count",
    "count_backward",
    "reconcile",
    "xla",
    "xla_backward",
]
