"""The table of meanings: primitive's name → rule, from an equation and its operands to its result or results.

A rule takes floats as an `Array` of scalars, truth values as an `Array` or NumPy's, and integers as NumPy's. It has a
meaning in ℝ, ℂ or ℤ; what has none (bits of a float, neighbouring floats, code that is not a program) has no rule.
"""

from collections.abc import Callable
from typing import Any

from refgrad.verify.exact.primitives import elementwise, indexing, linalg, movement, products, reductions

Rule = Callable[..., Any]
TABLE: dict[str, Rule] = {
    name: rule
    for family in (elementwise, movement, indexing, reductions, products, linalg)
    for name, rule in family.RULES.items()
}
WITH_PROGRAMS: dict[str, Rule] = reductions.WITH_PROGRAMS | indexing.WITH_PROGRAMS
"""Rules of equations that run programs on scalars: they take the interpreter before the equation."""
