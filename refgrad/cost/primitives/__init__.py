"""The table of costs: primitive's name → rule, a file for each family."""

from refgrad.cost.primitives import control, dots, elementwise, indexing, movement, reductions
from refgrad.cost.primitives.rule import Rule

TABLE: dict[str, Rule] = {
    **elementwise.RULES,
    **reductions.RULES,
    **dots.RULES,
    **movement.RULES,
    **indexing.RULES,
    **control.RULES,
}
