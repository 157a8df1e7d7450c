"""Truth in exact arithmetic, from the forward alone: no autodiff, no compiler, no step size, no convention at ties.

- `exact`, `Truth`, `Entry`, `Verdict`, `Limits` (`truth.py`): the value and derivative of a function at its arguments
- `Balls` (`balls.py`): arrays of midpoints with rigorous radii
- `germ`, `functions`, `arrays`: series in ε → 0+ with ball coefficients, functions of them, arrays of them
- `evaluate`, `primitives/`, `rounding`: a program evaluated on such arrays, and the table of what its primitives mean
"""

from refgrad.verify.exact.balls import Balls
from refgrad.verify.exact.evaluate import NoMeaning
from refgrad.verify.exact.truth import Entry, Limits, Truth, Verdict, exact

__all__ = ["Balls", "Entry", "Limits", "NoMeaning", "Truth", "Verdict", "exact"]
