"""Costs of any JAX function, forward and backward: FLOPs, bytes and memory, with every difference explained."""

from refgrad.cost.comparison.budgets import assert_cost, assert_unchanged
from refgrad.cost.comparison.comparison import Comparison, compare
from refgrad.cost.comparison.program import Program, program
from refgrad.cost.comparison.snapshot import load
from refgrad.cost.count import count, count_backward
from refgrad.cost.memory import Memory, memory
from refgrad.cost.peaks import mfu
from refgrad.cost.predict import Device, Prediction, predict
from refgrad.cost.reconcile import Reconciliation, Unexplained, reconcile
from refgrad.cost.residuals import Kept, Residuals, residuals
from refgrad.cost.types import Cost, Count, Site
from refgrad.cost.walk import UnknownCost
from refgrad.cost.xla import XlaCost, xla, xla_backward

__all__ = [
    "Comparison",
    "Cost",
    "Count",
    "Device",
    "Kept",
    "Memory",
    "Prediction",
    "Program",
    "Reconciliation",
    "Residuals",
    "Site",
    "Unexplained",
    "UnknownCost",
    "XlaCost",
    "assert_cost",
    "assert_unchanged",
    "compare",
    "count",
    "count_backward",
    "load",
    "memory",
    "mfu",
    "predict",
    "program",
    "reconcile",
    "residuals",
    "xla",
    "xla_backward",
]
