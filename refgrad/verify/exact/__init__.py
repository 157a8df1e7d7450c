"""Truth in exact arithmetic, from the forward alone: no autodiff, no compiler, no step size, no convention at ties.

- `exact`, `Truth` (`truth.py`), `Limits` (`forward.py`): the value and the derivatives of a function at its arguments
- `Entry`, `EntryVerdict` (`entry.py`, `entries.py`): the derivative along one entry, from both sides
- `Balls` (`balls.py`), `accuracy`: arrays of midpoints with rigorous radii, and how well they are known
- `scalars/`: series in ε → 0+ with ball coefficients, and functions of them; `arrays`: arrays of them
- `OverBudget` (`operations.py`): estimates of scalar operations, and the bound on them
- `graph/`: what one entry reaches and what that needs, so that nothing else is evaluated
- `evaluate`, `primitives/`, `rounding`: a program evaluated on such arrays, and the table of what its primitives mean
"""

from refgrad._renamed import old_names
from refgrad.verify.exact.balls import Balls
from refgrad.verify.exact.entry import Entry, EntryVerdict
from refgrad.verify.exact.evaluate import NoMeaning
from refgrad.verify.exact.operations import OverBudget
from refgrad.verify.exact.truth import Limits, Truth, exact

__all__ = ["Balls", "Entry", "EntryVerdict", "Limits", "NoMeaning", "OverBudget", "Truth", "exact"]

__getattr__ = old_names(__name__, Verdict="EntryVerdict")
