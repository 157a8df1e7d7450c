"""The survey's data: for each package a file with its requirements and its uses.

- `use.py`: `Use`, one rule at one set of arguments, with the verdict that is expected of it
- `measure.py`: the verdict of `verify.check` on a use, its CPU seconds, the independent reference
- `mutate.py`: wrong versions of the rules that a use calls
- `run.py`: all uses of one package, in the package's own environment: `python -m world.run PACKAGE FILE.jsonl`
"""
