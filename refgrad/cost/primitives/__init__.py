"""The table of costs: primitive's name → rule, a file for each family."""

from refgrad.cost.primitives import (
    collectives,
    control,
    dots,
    elementwise,
    indexing,
    linalg,
    movement,
    random,
    reductions,
    windows,
)
from refgrad.cost.primitives.rule import Rule

FAMILIES = {
    module.__name__.rsplit(".", 1)[-1]: module.RULES
    for module in (
        elementwise,
        reductions,
        windows,
        dots,
        movement,
        indexing,
        random,
        linalg,
        collectives,
        control,
    )
}

TABLE: dict[str, Rule] = {name: rule for rules in FAMILIES.values() for name, rule in rules.items()}
