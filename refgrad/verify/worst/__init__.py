"""The arguments at which a rule errs most, found by a search that its seed replays.

- `worst`, `Worst`, `WorstRow` (`search.py`): the search and its report
- `contest.py`: a rule and autodiff of the same function, compiled alike, and their errors in ulps
- `candidates.py`: what is tried
"""

from refgrad._renamed import old_names
from refgrad.verify.worst.search import Worst, WorstRow, worst

__all__ = ["Worst", "WorstRow", "worst"]

__getattr__ = old_names(__name__, Row="WorstRow")
