"""Does each fault reported in docs/found still show in the newest release of its package?

A page `docs/found/PACKAGE.md` names what to install ("Install: `REQUIREMENT …`") and holds, for each fault, a level-two
heading, a block of Python that needs only the package and JAX, and a block of text with what it printed. Each page gets
a virtual environment of its own from PyPI; each block runs in a process of its own. A fault is reproduced where the
words printed are the same and the numbers agree to a relative `tolerance`.

    python experiments/found.py
    python experiments/found.py --set packages='["numpyro"]' --set envs=DIR

With `--quick` only JAX's own page runs, in the Python that runs this script, and nothing is installed.
"""

import dataclasses
import math
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from _common import Figure, Result, Table, main, track

PAGES = Path(__file__).parents[1] / "docs" / "found"
FAULT = re.compile(r"^## (.+?)\n.*?^```python\n(.*?)^```\n+^```text\n(.*?)^```", re.M | re.S)
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|inf|nan)(?!\w)")
COLORS = {"reproduced": "C3", "no longer": "C2", "could not run": "C7"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Pages to run ("all": every one), where environments lie ("": this Python), tolerance, and seconds a block has."""

    packages: list[str]
    envs: str
    tolerance: float
    seconds: float

    def __post_init__(self) -> None:
        unknown = [name for name in self.packages if name != "all" and not (PAGES / f"{name}.md").is_file()]
        if unknown:
            raise ValueError(f"docs/found has no page for {', '.join(unknown)}")


@dataclasses.dataclass(frozen=True)
class Fault:
    """A reproduction and its output, on the page of a package."""

    package: str
    title: str
    code: str
    printed: str

    def __str__(self) -> str:
        return f"{self.package}: {self.title}"


@dataclasses.dataclass(frozen=True)
class Page:
    """A page of docs/found: the packages that it says to install, and its faults."""

    package: str
    requirements: list[str]
    faults: list[Fault]


def read(path: Path) -> Page:
    """Read a page."""
    text = path.read_text()
    install = re.search(r"^Install: `(.+?)`", text, re.M)
    if install is None:
        raise ValueError(f"{path.name} does not say what to install")
    faults = [Fault(path.stem, *found) for found in FAULT.findall(text)]
    return Page(path.stem, install[1].split(), faults)


def agrees(got: str, expected: str, tolerance: float) -> bool:
    """Return True where the words are equal and the numbers agree, NaN with NaN."""
    if NUMBER.sub("#", got).split() != NUMBER.sub("#", expected).split():
        return False
    pairs = zip(map(float, NUMBER.findall(got)), map(float, NUMBER.findall(expected)), strict=True)
    return all(math.isclose(a, b, rel_tol=tolerance) or (math.isnan(a) and math.isnan(b)) for a, b in pairs)


def environment(page: Page, envs: str) -> str:
    """Return the Python of a page's environment, which is made or brought up to date first."""
    if not envs:
        return sys.executable
    folder = Path(envs) / page.package
    python = str(folder / "bin" / "python")
    if not Path(python).exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--upgrade", *page.requirements], check=True)
    return python


def versions(python: str, requirements: list[str]) -> str:
    """Return the versions of the requirements and of JAX in an environment."""
    names = dict.fromkeys([re.split(r"[\[<>=~!]", word)[0] for word in requirements if word[0] != "-"] + ["jax"])
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    printed = subprocess.run([python, "-c", code, *names], check=True, capture_output=True, text=True).stdout
    return ", ".join(map(" ".join, zip(names, printed.split(), strict=True)))


def verdict(python: str, fault: Fault, settings: Settings) -> str:
    """Run a reproduction and compare its output."""
    try:
        done = subprocess.run(
            [python, "-c", fault.code], capture_output=True, text=True, timeout=settings.seconds, check=True
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return "could not run"
    return "reproduced" if agrees(done.stdout, fault.printed, settings.tolerance) else "no longer"


def run(settings: Settings) -> Result:
    """Run every reproduction of the pages asked for."""
    names = sorted(path.stem for path in PAGES.glob("*.md") if path.stem != "README")
    pages = {name: read(PAGES / f"{name}.md") for name in names if {name, "all"} & set(settings.packages)}
    rows, python, tested = [], "", ""
    for fault in track([fault for page in pages.values() for fault in page.faults], "faults"):
        page = pages[fault.package]
        if not rows or rows[-1][0] != page.package:
            try:
                python = environment(page, settings.envs)
                tested = versions(python, page.requirements)
            except subprocess.CalledProcessError as error:
                python, tested = "", f"not installed: {error}"
        rows.append(
            [page.package, tested, fault.title, verdict(python, fault, settings) if python else "could not run"]
        )
    return result(rows)


def result(rows: list[list[str]]) -> Result:
    """The verdicts as a table, counted; what no longer holds or did not run is a failure, as the page is then stale."""
    counts = Counter(row[-1] for row in rows)
    said = ", ".join(f"{counts[name]} {name}" for name in COLORS)
    failures = [f"{row[0]}: {row[2]}: {row[3]} ({row[1]})" for row in rows if row[-1] != "reproduced"]
    table = Table(["package", "versions", "fault", "verdict"], rows)
    return Result([f"Of {len(rows)} faults: {said}."], table, [figure(rows, said)], failures=failures)


def figure(rows: list[list[str]], said: str) -> Figure:
    """A bar for each package, by verdict."""
    packages = list(dict.fromkeys(row[0] for row in rows))

    def paint(axes) -> None:
        left = [0] * len(packages)
        for name, color in COLORS.items():
            widths = [sum(row[0] == package and row[-1] == name for row in rows) for package in packages]
            axes.barh(packages, widths, left=left, color=color, label=name)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        axes.set(xlabel="faults", ylabel="package")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)

    alt = f"A bar for each of {len(packages)} packages; of {len(rows)} faults: {said}."
    return Figure("Faults found in public packages", alt, paint, options={"size": (7, 1.6 + 0.3 * len(packages))})


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, Settings, run))
