"""The survey of `experiments/world_rules.py`.

- `packages.py`, `uses/`: the packages, and the uses of each as data
- `use.py`: `Use`, one rule at one set of arguments, with the verdict that is expected of it
- `environments.py`: a virtual environment for each package, and the process that runs its uses there
- `run.py`: all uses of one package: `python -m world.run PACKAGE FILE.jsonl`
- `measure.py`: the verdict of `verify.check` on a use, its CPU seconds, the independent reference
- `mutate.py`: wrong versions of the rules that a use calls
- `page.py`: the page of the results
"""
