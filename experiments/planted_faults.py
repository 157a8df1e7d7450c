"""Do the fast tests of a room catch faults planted in its code?

A fault is one edit of one expression: another comparison or operator, a dropped term, sign or condition, `and` for
`or`, a number off by one or doubled, swapped arguments or branches. Docstrings, messages and annotations have none. All
faults are drawn before any test runs. Each is planted in a copy of the checkout and put before the fast tests of its
room until one fails: those that execute its line, then those that enter its file, and all of them where it runs at
import. A run that does not end within the limit is a failure too. At least 95 % must be caught.

    python experiments/planted_faults.py
    python experiments/planted_faults.py --set 'sources=["refgrad/ops"]' --set 'tests=["tests/ops"]' --set seed=1

It needs Python 3.12, whose `sys.monitoring` says which test executes which line.
"""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from _common import Figure, Result, Table, main, track
from _faults import Fault, draw

from refgrad.report.figures import BLUE, VERMILLION

ROOT = Path(__file__).parents[1]
SHARE = 0.95  # of the faults that must be caught
NOT_COPIED = shutil.ignore_patterns(".git", ".venv*", ".pytest_cache", "__pycache__", "build", "dist", "out")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Rooms, the tests of each, faults in each, the seed of the draw, seconds that the tests of a fault may take."""

    sources: list[str]
    tests: list[str]
    faults: int
    seed: int
    timeout: int

    def __post_init__(self) -> None:
        if sys.version_info < (3, 12):
            raise ValueError(f"Python is {sys.version.split()[0]}, but sys.monitoring needs 3.12 or newer")
        if len(self.sources) != len(self.tests):
            raise ValueError(f"tests has {len(self.tests)} entries, but sources {len(self.sources)}: one for each")
        for path in (*self.sources, *self.tests):
            if not (ROOT / path).exists():
                raise ValueError(f"{path!r} does not exist in {ROOT}")
        if self.faults < 1:
            raise ValueError(f"faults is {self.faults}, but must be at least 1")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The test that caught a fault (empty: none did), and the number of tests that execute its line."""

    fault: Fault
    caught_by: str
    executed_by: int


def pytest(tree: Path, *arguments: str, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run pytest in the copy of the checkout, in one process, with this experiment's plugin."""
    paths = os.pathsep.join(map(str, (tree, tree / "experiments")))
    words = [sys.executable, "-m", "pytest", "-n", "0", "-p", "_fault_tests", "-rfE", "--tb=no", *arguments]
    env = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(words, cwd=tree, env=env, capture_output=True, text=True, timeout=timeout)


def watched(tree: Path, tests: str, faults: list[Fault]) -> dict:
    """The faults' lines that each test executes, and its seconds (see `_fault_tests.Watch`).

    Raises RuntimeError where a test fails without any fault.
    """
    lines: dict[str, set[int]] = defaultdict(set)
    for fault in faults:
        lines[str(tree / fault.path)] |= set(fault.lines)
    path = tree / "watch.json"
    path.write_text(json.dumps({file: sorted(numbers) for file, numbers in lines.items()}))
    done = pytest(tree, "--watch", str(path), tests)
    if done.returncode:
        raise RuntimeError(f"{tests} fails without a fault:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return json.loads(path.read_text())


def stages(tree: Path, fault: Fault, found: dict) -> list[list[str]]:
    """The tests that execute the fault's line, and those that enter its file, each the fastest first.

    Any test of the room may depend on a line that runs at import, or that none is seen to execute.
    """
    file = str(tree / fault.path)
    order = sorted(found["seconds"], key=found["seconds"].__getitem__)
    lines = {name: {line for path, line in found["seen"][name] if path == file} for name in order}
    first = [name for name in order if not lines[name].isdisjoint(fault.lines)]
    second = [name for name in order if lines[name] and name not in set(first)]
    imported = any(path == file and line in fault.lines for path, line in found["imported"])
    return [first, second, [name for name in order if not lines[name] and (imported or not first)]]


def caught_by(tree: Path, fault: Fault, tests: list[list[str]], timeout: float) -> str:
    """Plant the fault and return the first test that fails; empty where none does."""
    text = fault.plant(tree)
    try:
        for names in filter(None, tests):
            order = tree / "order.json"
            order.write_text(json.dumps(names))
            files = sorted({name.partition("::")[0] for name in names})
            try:
                done = pytest(tree, "-x", "--order", str(order), *files, timeout=timeout)
            except subprocess.TimeoutExpired:
                return f"no end within {timeout:g} s"
            if done.returncode:
                failed = re.search(r"^(?:FAILED|ERROR) (\S+(?:\[.*\])?)", done.stdout, re.MULTILINE)
                return failed.group(1) if failed else (done.stdout + done.stderr).strip().splitlines()[-1]
        return ""
    finally:
        (tree / fault.path).write_text(text)


def run(settings: Settings) -> Result:
    """Draw, plant, test."""
    drawn = [draw(ROOT, source, settings.faults, settings.seed) for source in settings.sources]
    print(*(fault for faults in drawn for fault in faults), sep="\n", file=sys.stderr, flush=True)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder).resolve() / "refgrad"
        shutil.copytree(ROOT, tree, ignore=NOT_COPIED)
        for faults, tests in zip(drawn, settings.tests, strict=True):
            found = watched(tree, tests, faults)
            for fault in track(faults, tests):
                order = stages(tree, fault, found)
                outcomes.append(Outcome(fault, caught_by(tree, fault, order, settings.timeout), len(order[0])))
                print(f"{outcomes[-1].caught_by or 'SURVIVED'}: {fault}", file=sys.stderr, flush=True)
    return result(settings, outcomes)


def result(settings: Settings, outcomes: list[Outcome]) -> Result:
    """All outcomes, and the share that was caught."""
    survived = [outcome.fault for outcome in outcomes if not outcome.caught_by]
    caught = len(outcomes) - len(survived)
    rows = [
        (o.fault.path, o.fault.lines.start, o.fault.kind, o.fault.old, o.fault.new, o.executed_by, o.caught_by)
        for o in outcomes
    ]
    header = ("file", "line", "kind", "before", "after", "tests of the line", "caught by")
    answer = [f"{caught} of {len(outcomes)} faults were caught.", *(f"Not caught: {fault}" for fault in survived)]
    enough = caught >= SHARE * len(outcomes)
    failures = [] if enough else [f"{caught} of {len(outcomes)} were caught, but must be {SHARE:.0%}"]
    counts = [
        (sum(bool(o.caught_by) == is_caught for o in outcomes if o.fault.path.startswith(source)))
        for is_caught in (True, False)
        for source in settings.sources
    ]
    half = len(settings.sources)

    def paint(axes) -> None:
        axes.barh(settings.sources, counts[:half], color=BLUE, label="caught")
        axes.barh(settings.sources, counts[half:], left=counts[:half], color=VERMILLION, label="survived")
        axes.invert_yaxis()
        axes.set(xlabel="faults", ylabel="room")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)

    alt = f"A bar for each of {half} rooms; in sum {caught} of {len(outcomes)} faults are caught."
    return Result(answer, Table(header, rows), [Figure("Planted faults", alt, paint)], failures=failures)


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, Settings, run))
