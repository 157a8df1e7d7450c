"""The arguments at which a rule errs most, found by a search that its seed replays.

- `worst`, `Worst`, `Row` (`search.py`): the search and its report
- `contest.py`: a rule and autodiff of the same function, compiled alike, and their errors in ulps
- `candidates.py`: what is tried
"""

from refgrad.verify.worst.search import Row, Worst, worst

__all__ = ["Row", "Worst", "worst"]
