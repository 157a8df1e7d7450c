"""All uses of one package, in the package's own environment: a line of JSON for each, appended as soon as it is done.

python -m world.run PACKAGE FILE.jsonl [MUTANTS] [USES]
"""

import importlib
import json
import sys
import warnings
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from world.measure import measure
from world.mutate import drawn, score
from world.packages import PACKAGES

NEVER_DONE = "the process ended"


def main(arguments: Sequence[str]) -> int:
    """Run the uses of a package that its file does not hold yet."""
    package, path = arguments[0], Path(arguments[1])
    mutants, most = (int(n) for n in (*arguments[2:4], *("0", "0")[len(arguments[2:4]) :]))
    module = importlib.import_module(f"world.uses.{package}")
    uses = module.USES[:most] if most else module.USES
    names = [use.name for use in uses]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{package}: two uses have the name {', '.join(sorted(twice))}")
    done = {line["use"]: line for line in lines(path)}
    facts = {"package": package, "version": metadata.version(PACKAGES[package][0]), "jax": jax.__version__}
    warnings.simplefilter("ignore")
    for use in uses:
        if use.name not in done:
            append(path, {"begun": use.name, **facts})
            done[use.name] = facts | measure(use)
            append(path, done[use.name])
            jax.clear_caches()
    fit = [use for use in uses if may_be_mutated(done[use.name])]
    plan = drawn(fit, mutants) if not all(complete(done[use.name], mutants) for use in fit) else {}
    for use in fit:
        if not complete(done[use.name], mutants):
            result = done[use.name] | {"tried": mutants}
            append(path, result | {"mutants": {NEVER_DONE: "not run"}})
            append(path, result | {"mutants": score(use, plan[use.name])})
            jax.clear_caches()
    return 0


def may_be_mutated(result: dict[str, Any]) -> bool:
    """Return True for a use that passes."""
    return result["outcome"] == result["expected"] and result["expected"] in ("right", "meant to differ")


def complete(result: dict[str, Any], mutants: int) -> bool:
    """Return True for a result with its part of so many mutants of the package, where its rules are to be edited."""
    return not may_be_mutated(result) or result.get("tried", 0) >= mutants


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the results in a file; a use that was begun and has no result ended its process."""
    if not path.exists():
        return []
    results: dict[str, dict[str, Any]] = {}
    for line in map(json.loads, filter(str.strip, path.read_text().splitlines())):
        if name := line.get("begun"):
            facts = {key: line[key] for key in ("package", "version", "jax")}
            results[name] = {**facts, "use": name, "expected": "", "outcome": "crashed", "found": NEVER_DONE, "why": ""}
        else:
            results[line["use"]] = line
    return list(results.values())


def append(path: Path, line: dict[str, Any]) -> None:
    """Append a line to a file."""
    with path.open("a") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
