"""Every rule that runs, with the values that flow through it, and a check of each at the end.

>>> with verify.record() as seen:
...     train_step(params, batch)      # eager, jit, grad, vmap, scan, while, cond, checkpoint, …
>>> seen                               # a `RecordedRule` per rule × signature: name, file and line, values, calls
>>> print(seen.check())                # `check` on each; `.ok`, `.json()`

- `record` (`recorder.py`): the context manager, which patches `__call__` of the rules' classes
- `tap` (`tap.py`): a debug callback that takes the values of traced arguments
- `identify` (`identity.py`): the name and place of a rule, and what tells it from another one of the same code
- `RecordedRule` (`call.py`): one rule at one signature, and its values
- `Seen`, `RecordOutcome`, `RuleVerdict` (`outcome.py`): the rules seen, and the outcome of checking them

Blind spots: programs that were compiled before the recording are not traced again, so their rules are not seen. Under
`vmap` the values are those of the first lane; in a vmapped `cond` they can be those of a branch that is not taken.
While the values of a signature are awaited, a jaxpr that the caller makes shows the callback. A `jax.export` is left
alone. Rules of one place in the source that differ only in the arrays that they close over count as one.
"""

from refgrad._renamed import old_names
from refgrad.verify.record.call import RecordedRule
from refgrad.verify.record.outcome import RecordOutcome, RuleVerdict, Seen
from refgrad.verify.record.recorder import record

__all__ = ["RecordOutcome", "RecordedRule", "RuleVerdict", "Seen", "record"]

__getattr__ = old_names(__name__, Call="RecordedRule", Outcome="RecordOutcome", Verdict="RuleVerdict")
