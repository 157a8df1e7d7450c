"""Does `verify.check` say the right thing about the rules of public packages?

Each package is installed by pip into a virtual environment of its own, and its uses are checked there. A use, in
`experiments/world/uses/PACKAGE.py`, is a function at realistic arguments, with the verdict that is expected of it. Each
rule that passes is also compared with an independent reference: float64 autodiff of a plain re-expression, or
differences of the forward. Misses are measured by mutants: rules that the uses call are edited in place, and must then
fail; so many of each package are drawn, with a fixed seed, from all its uses, rules and edits.

    python experiments/world_rules.py
    python experiments/world_rules.py --set 'packages=["optax"]' --set mutants=12 --set envs=/tmp/envs

A use keeps its result until its environment is deleted, or `again` is set, so that a survey that was interrupted
continues, and mutants can be added to it; with `stored`, nothing is run, and the results at hand are shown. Seconds are
CPU seconds of one process. The environments take 600 MB each.
"""

import ast
import dataclasses
import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from _common import Figure, Result, Table, main, track
from world.environments import names, python_of, surveyed
from world.packages import PACKAGES
from world.page import write_page
from world.run import lines as results_in

from refgrad._text import nearest
from refgrad.report.figures import BLUE, GREEN, ORANGE, PURPLE, VERMILLION

OUTCOMES = {"right": BLUE, "wrong": GREEN, "meant to differ": ORANGE, "not decided": PURPLE, "crashed": VERMILLION}
HERE = "here"  # the running interpreter in place of an environment
LONGEST = 30.0  # CPU seconds of a use without a budget of its own
MEDIAN = 4.0


@dataclasses.dataclass(frozen=True)
class Settings:
    """The packages (or "all"), the environments' folder, mutants and uses (0: all) of each package."""

    packages: list[str]
    envs: str
    mutants: int
    uses: int
    patience: int
    again: bool
    stored: bool
    page: str

    def __post_init__(self) -> None:
        for name in self.packages:
            if name not in ("all", *PACKAGES):
                raise ValueError(f"packages: {name!r} is unknown: {nearest(name, PACKAGES)}")
        if min(self.mutants, self.uses) < 0 or self.patience < 1:
            raise ValueError("mutants and uses must be at least 0, patience at least 1 second")

    @property
    def names(self) -> list[str]:
        """The packages."""
        return list(PACKAGES) if "all" in self.packages else self.packages


def run(settings: Settings) -> Result:
    """Survey each package in turn."""
    found: list[dict[str, Any]] = []
    unavailable: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for package in track(settings.names, "packages"):
            try:
                found += of_package(settings, package, Path(folder))
            except RuntimeError as error:
                unavailable.append(str(error))
    if settings.stored:
        unavailable += without_result(found)
    lacking = failures(found, unavailable)
    if settings.page:
        write_page(Path(settings.page), found, summary(found), lacking)
    rows = [row(package, [r for r in found if r["package"] == package]) for package in settings.names]
    table = Table(
        ["package", "version", "JAX", "uses", *OUTCOMES, "not as expected", "median s", "mutants caught"],
        [cells for cells in rows if cells is not None],
    )
    return Result(summary(found), table, [figure(found)], data=data(found), failures=lacking)


def of_package(settings: Settings, package: str, scratch: Path) -> list[dict[str, Any]]:
    """Return the results of one package; those of an environment lie in it."""
    here = settings.envs == HERE
    envs = Path(settings.envs).expanduser()
    path = (scratch if here else envs / package) / "results.jsonl"
    if settings.stored:
        if not path.exists():
            raise RuntimeError(f"{package}: not surveyed")
        return results_in(path)
    python = sys.executable if here else python_of(package, envs)
    if settings.again:
        path.unlink(missing_ok=True)
    uses = names(package, python)[: settings.uses or None]
    return surveyed(package, python, path, uses, (settings.mutants, settings.uses), settings.patience)


def without_result(found: list[dict[str, Any]]) -> list[str]:
    """Return a line for each package about the uses that its file names and that have no result."""
    lines = []
    for package in dict.fromkeys(r["package"] for r in found):
        tree = ast.parse((Path(__file__).parent / "world" / "uses" / f"{package}.py").read_text())
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
        made = [c.args[0] for c in calls if isinstance(c.func, ast.Name) and c.func.id in ("Use", "layer")]
        known = {r["use"] for r in found if r["package"] == package}
        names = [x.value for x in made if isinstance(x, ast.Constant) and x.value not in known]
        if names:
            lines.append(f"{package}, no result of {len(names)}: {', '.join(map(str, names))}")
    return lines


def failures(found: list[dict[str, Any]], unavailable: list[str]) -> list[str]:
    """Return what does not hold: false alarms, misses, crashes, references that disagree, slow uses, survivors."""
    lines = [text.splitlines()[0] for text in unavailable]
    for r in found:
        title = f"{r['package']}, {r['use']}"
        if r["outcome"] != r["expected"]:
            lines.append(f"{title}: {r['outcome']}, expected {r['expected'] or 'a result'}. {r['found']}".strip())
        if r["outcome"] == "right" and r["confirmed"] != "yes" and not r["why"]:
            lines.append(f"{title}: the independent reference does not confirm it ({r['confirmed']})")
        if r.get("seconds", 0) > LONGEST and not r.get("budget"):
            lines.append(f"{title}: {r['seconds']:.0f} s of one core")
        lines += [f"{title}: survived, {name}" for name, v in r.get("mutants", {}).items() if v == "survived"]
    return lines


def summary(found: list[dict[str, Any]]) -> list[str]:
    """Return the answer in sentences."""
    outcomes = Counter(r["outcome"] for r in found)
    packages = len({r["package"] for r in found})
    false = sum(r["outcome"] == "wrong" and r["expected"] != "wrong" for r in found)
    missed = sum(r["outcome"] in ("right", "meant to differ") and r["expected"] == "wrong" for r in found)
    faults = sum(r["outcome"] == r["expected"] == "wrong" for r in found)
    right = [r for r in found if r["outcome"] == "right"]
    seconds = [r["seconds"] for r in found if "seconds" in r]
    verdicts = Counter(v.split(":")[0] for r in found for v in r.get("mutants", {}).values())
    lines = [
        f"{len(found)} uses in {packages} packages: "
        + ", ".join(f"{outcomes[name]} {name}" for name in OUTCOMES)
        + ".",
        f"{false} false alarms, {missed} misses, {outcomes['crashed']} crashes; {faults} expected failures shown.",
        f"{sum(r['confirmed'] == 'yes' for r in right)} of the right ones confirmed by an independent reference.",
    ]
    if seconds:
        lines.append(f"CPU seconds of a use: median {statistics.median(seconds):.1f}, most {max(seconds):.1f}.")
    if verdicts:
        tried = verdicts["caught"] + verdicts["survived"]
        lines.append(
            f"Mutants: {verdicts['caught']} of {tried} caught; besides, {verdicts['equivalent']} equivalent, "
            f"{verdicts['tolerated']} within the stated tolerance, {verdicts['not run']} not run."
        )
    return lines


def row(package: str, results: list[dict[str, Any]]) -> list[Any] | None:
    """Return a package's row of the table; None where it has no results."""
    if not results:
        return None
    outcomes = Counter(r["outcome"] for r in results)
    verdicts = Counter(v for r in results for v in r.get("mutants", {}).values())
    tried = verdicts["caught"] + verdicts["survived"]
    return [
        package,
        results[0]["version"],
        results[0]["jax"],
        len(results),
        *(outcomes[name] for name in OUTCOMES),
        sum(r["outcome"] != r["expected"] for r in results),
        statistics.median(r.get("seconds", 0.0) for r in results),
        f"{verdicts['caught']} of {tried}" if tried else None,
    ]


def data(found: list[dict[str, Any]]) -> Table:
    """Return every use as a row."""
    keys = (
        "package",
        "version",
        "jax",
        "use",
        "expected",
        "outcome",
        "seconds",
        "reference",
        "confirmed",
        "why",
        "found",
    )
    return Table([*keys, "mutants"], [[*(r.get(k) for k in keys), mutants(r)] for r in found])


def mutants(result: dict[str, Any]) -> str:
    """Return the verdicts on a use's mutants as text."""
    return "; ".join(f"{name}: {verdict}" for name, verdict in result.get("mutants", {}).items())


def figure(found: list[dict[str, Any]]) -> Figure:
    """Return a bar for each package: its uses by outcome."""
    packages = list(dict.fromkeys(r["package"] for r in found)) or ["none"]
    counts = {o: [sum(r["package"] == p and r["outcome"] == o for r in found) for p in packages] for o in OUTCOMES}

    def paint(axes: Any) -> None:
        left = [0] * len(packages)
        for outcome, color in OUTCOMES.items():
            axes.barh(packages, counts[outcome], left=left, color=color, label=outcome)
            left = [a + b for a, b in zip(left, counts[outcome], strict=True)]
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set(xlabel="uses", ylabel="package")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)

    alt = f"A bar for each of {len(packages)} packages; in sum " + ", ".join(
        f"{sum(values)} {outcome}" for outcome, values in counts.items()
    )
    return Figure("The world's rules", alt + ".", paint, options={"size": (7, 1.8 + 0.22 * len(packages))})


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, Settings, run))
