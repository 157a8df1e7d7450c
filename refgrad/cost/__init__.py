"""What does this computation cost, forward and backward, with no FLOP unexplained?"""

from refgrad.cost.count import count, count_backward
from refgrad.cost.types import Cost, Count, Site
from refgrad.cost.walk import UnknownCost

__all__ = ["Cost", "Count", "Site", "UnknownCost", "count", "count_backward"]
