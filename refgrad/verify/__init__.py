"""Checks of backward rules: is a rule right, and if not, where is it wrong?

- `check`, `assert_ok` (`check.py`): one line that checks the rules inside any function; `Report`, `Row` (`report.py`)
- `intents` (`intents.py`): rules that differ from the derivative on purpose, as references
- `sweep`, `special`, `sizes` (`check(sweep=True)`): special values of the arguments, and other sizes of them;
  `arguments`: both as text; `strategies`: the same for Hypothesis
- `without_rules`, `remaining_rules` (`rules.py`): the function without its rules, which is where truth comes from
- `widen` (`widen.py`): a function in float64 all the way inside
- `exact` (`exact/`): truth in exact arithmetic, from the forward alone, with a verdict on every entry
- `prove` (`prove/`): a rule proven for all real arguments on a branch
- `worst` (`worst/`): the arguments at which a rule errs most against exact truth, and autodiff beside it
- `blame` (`blame.py`): each call of a rule judged alone, so that the wrong one is named
- `record` (`record/`): every rule that runs, with its values, and a check of each; `pytest --refgrad`
- `mutants`, `equivalent` (`mutants.py`): wrong versions of a right rule, to measure a test with;
  `mutation_score` (`mutation_score.py`) says which of them `check` catches
- `allowance`, `longest_reduction` (`allowance.py`): how far a right rule may be from the truth
- `PROPERTIES` (`properties/`): what is checked, by name; of a HiPrim each method by itself (`properties/methods/`)
"""

from refgrad._renamed import old_names
from refgrad.verify import intents
from refgrad.verify.allowance import allowance, longest_reduction
from refgrad.verify.blame import blame
from refgrad.verify.check import assert_ok, check
from refgrad.verify.exact import exact
from refgrad.verify.mutant import Mutant
from refgrad.verify.mutants import equivalent, mutants
from refgrad.verify.mutation_score import mutation_score
from refgrad.verify.properties import PROPERTIES
from refgrad.verify.prove import prove
from refgrad.verify.record import record
from refgrad.verify.report import Report, Row
from refgrad.verify.rules import remaining_rules, without_rules
from refgrad.verify.widen import widen
from refgrad.verify.worst import Worst, worst

__all__ = [
    "PROPERTIES",
    "Mutant",
    "Report",
    "Row",
    "Worst",
    "allowance",
    "assert_ok",
    "blame",
    "check",
    "equivalent",
    "exact",
    "intents",
    "longest_reduction",
    "mutants",
    "mutation_score",
    "prove",
    "record",
    "remaining_rules",
    "widen",
    "without_rules",
    "worst",
]

__getattr__ = old_names(__name__, tally="mutation_score")
