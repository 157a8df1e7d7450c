"""The harness of every experiment: settings in, answer, data, figures and card out.

An experiment is one script, `experiments/NAME.py`, whose docstring begins with its question, with its settings in
`configs/experiments/NAME.toml`:

    @dataclass(frozen=True)
    class Settings: ...                     # the keys of the TOML file; __post_init__ raises ValueError for bad ones
    def run(settings: Settings) -> Result: ...
    if __name__ == "__main__":
        sys.exit(main(__file__, __doc__, Settings, run))

The command, `python experiments/NAME.py [--quick] [--set key=value] [--config FILE.toml] [--out DIR]`, prints the
question, the table and the answer, and leaves in DIR (default: out/NAME), each written whole or not at all:

    NAME.csv    the data, a line a row, unrounded
    NAME.svg    the figure (further ones: NAME-SUFFIX.svg), see refgrad/report/figures.py
    NAME.json   the card, which is written last and says all that a page needs to show the experiment:
                name, question, explanation: from the script's docstring
                claims: which rows of the ledger it bears on, such as "D2.24"
                answer: sentences, computed from the run
                holds: whether all that the experiment checks holds; failures: what does not
                table: {header, rows}: cells as printed
                figures: [{file, title, alt}]; data: the CSV's name
                command, settings, seconds, versions, machine

Exit code: 0 where all that it checks holds, 1 where not, 2 for bad settings.

In the TOML file the top-level keys are the settings, all of them; its table [quick] holds those that `--quick` changes
for a run of a few seconds. A file given by --config, then --set, change some of them.
"""

import argparse
import dataclasses
import math
import numbers
import os
import platform
import shlex
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax

from refgrad._files import read_toml, toml_value, writable, write_csv, write_json
from refgrad._machine import versions
from refgrad._progress import track
from refgrad._text import nearest, table
from refgrad.report import figures

__all__ = ["Figure", "Result", "Table", "interleaved", "main", "temporaries", "track"]

CONFIGS = Path(__file__).parent.parent / "configs" / "experiments"
K = TypeVar("K")
S = TypeVar("S")


@dataclasses.dataclass(frozen=True)
class Table:
    """Columns, named with their units, and rows of values: int, float, str, bool, or None for an empty cell."""

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def cells(self) -> list[list[str]]:
        """The rows as they are printed: integers in full, other numbers to four digits."""
        return [[shown(value) for value in row] for row in self.rows]


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture: what it shows (`title`), what one sees in it (`alt`, from the run's own numbers), and how it is drawn.

    `paint` gets the axes, or an array of them where `options` (those of `figures.draw`) ask for rows and columns.
    """

    title: str
    alt: str
    paint: Callable[[Any], None]
    suffix: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def draw(self, path: str | Path) -> None:
        """Draw and save, as SVG or (to look at it) PNG."""
        with figures.draw(path, self.title, self.alt, **self.options) as axes:
            self.paint(axes)


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of an experiment."""

    answer: Sequence[str]
    """Sentences with the run's own numbers."""
    table: Table
    """The table that is printed."""
    figures: Sequence[Figure]
    claims: Sequence[str] = ()
    """Ids of the ledger's rows."""
    data: Table | None = None
    """The CSV's table, where it holds more than the printed one."""
    failures: Sequence[str] = ()
    """The checks that failed; empty where all hold."""


def main(
    file: str,
    doc: str | None,
    kind: type[S],
    run: Callable[[S], Result],
    arguments: Sequence[str] | None = None,
) -> int:
    """Run the experiment as the command line says; returns the exit code."""
    name, about = Path(file).stem, (doc or "").strip()
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", metavar="FILE.toml", help=f"changes to configs/experiments/{name}.toml")
    parser.add_argument("--set", metavar="key=value", action="append", default=[], help="change one setting")
    parser.add_argument("--quick", action="store_true", help="the small sizes of [quick]: a run of a few seconds")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("out") / name, help="default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        settings: Any = load(kind, CONFIGS / f"{name}.toml", options.config, options.set, options.quick)
        figures.require()
        options.out.mkdir(parents=True, exist_ok=True)
        writable(str(options.out / f"{name}.json"))
    except (ValueError, TypeError, OSError, ImportError) as error:
        parser.error(str(error))
    start = time.perf_counter()
    result = run(settings)
    seconds = time.perf_counter() - start
    facts = {"command": command(name, options), "settings": dataclasses.asdict(settings), "seconds": seconds}
    write(result, options.out, name, about, facts)
    question, _, _ = about.partition("\n\n")
    print(question, table(result.table.header, result.table.cells()), "\n".join(result.answer), sep="\n\n")
    for failure in result.failures:
        print(f"DOES NOT HOLD: {failure}")
    print(f"\n{seconds:.1f} s; data, figure and card in {options.out}")
    return 1 if result.failures else 0


def load(kind: type[S], default: Path, path: str | None, changes: Sequence[str], quick: bool) -> S:
    """The settings: those of the default file, changed by its [quick], then by another file, then one by one.

    Raises ValueError or TypeError, naming the key and the nearest known one or the type that it must have.
    """
    values = read_toml(default)
    small = values.pop("quick", {})
    types = dict(values)
    given = read_toml(path) if path is not None else {}
    steps = [(f"{default.name} [quick]", small if quick else {})]
    steps.append((str(path), {key: value for key, value in given.items() if key != "quick"}))
    steps.append((str(path), given.get("quick", {}) if quick else {}))
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise ValueError(f"--set {change}: write key=value, such as {next(iter(types))}=…")
        words = isinstance(types.get(key), str) and not text.startswith(('"', "'"))
        steps.append(("--set", {key: text if words else toml_value(text)}))
    for source, mapping in steps:
        for key, value in mapping.items():
            if key not in types:
                raise ValueError(f"{source}: {key} = {value!r} is not a setting: {nearest(key, types)}")
            values[key] = typed(f"{source}: {key}", value, types[key])
    return kind(**values)


def command(name: str, options: argparse.Namespace) -> str:
    """The command line that runs the same again."""
    words = ["python", f"experiments/{name}.py", *(["--quick"] if options.quick else [])]
    words += ["--config", options.config] if options.config else []
    return shlex.join([*words, *(word for change in options.set for word in ("--set", change))])


def typed(where: str, value: Any, like: Any) -> Any:
    """`value`, if it is of the type of the file's own `like` (an integer will do for a float; lists by their first).

    Raises TypeError where it is not.
    """
    if isinstance(like, float) and type(value) is int:
        return float(value)
    if type(value) is not type(like):
        raise TypeError(f"{where} = {value!r} is of type {type(value).__name__}, but must be {type(like).__name__}")
    if isinstance(value, list) and isinstance(like, list):
        if not value:
            raise ValueError(f"{where} = [] is empty: give at least one")
        return [typed(f"{where}[{n}]", one, like[0]) for n, one in enumerate(value)]
    return value


def write(result: Result, out: Path, name: str, about: str, facts: Mapping[str, Any]) -> None:
    """Data, figures, then the card: where the card lies, the rest does too."""
    data = result.data or result.table
    write_csv(out / f"{name}.csv", data.header, data.rows)
    drawn = []
    for figure in result.figures:
        stem = f"{name}-{figure.suffix}" if figure.suffix else name
        figure.draw(out / f"{stem}.svg")
        drawn.append({"file": f"{stem}.svg", "title": figure.title, "alt": figure.alt})
    question, _, explanation = about.partition("\n\n")
    write_json(
        out / f"{name}.json",
        {
            "name": name,
            "question": " ".join(question.split()),
            "explanation": explanation,
            "claims": list(result.claims),
            "answer": list(result.answer),
            "holds": not result.failures,
            "failures": list(result.failures),
            "table": {"header": list(result.table.header), "rows": result.table.cells()},
            "figures": drawn,
            "data": f"{name}.csv",
            **facts,
            "versions": versions("numpy", "matplotlib"),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, {jax.default_backend()}",
        },
    )


def shown(value: Any) -> str:
    """A value as a reader sees it."""
    if value is None:
        return ""
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, numbers.Integral):
        return f"{int(value):,}"
    size = abs(value)
    return f"{value:.4g}" if size == 0 or 1e-4 <= size < 1e4 or not math.isfinite(size) else f"{value:.3e}"


def interleaved(work: Mapping[K, Callable[[], Any]], rounds: int) -> dict[K, float]:
    """Median seconds of each call until its result is ready: rounds of all of them, every other one backwards.

    A round before them compiles, and each call in a round runs twice, and the second counts: the first brings its
    own data back into the caches.

    Raises ValueError for less than one round.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}, but must be at least 1")
    seconds: dict[K, list[float]] = {name: [] for name in work}
    for call in work.values():
        jax.block_until_ready(call())
    for n in track(range(rounds), "timing"):
        for name in list(work)[:: -1 if n % 2 else 1]:
            jax.block_until_ready(work[name]())
            start = time.perf_counter()
            jax.block_until_ready(work[name]())
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def temporaries(compiled: Any) -> int:
    """Bytes between arguments and results, as XLA plans them.

    Raises RuntimeError where the backend has no memory analysis.
    """
    plan = compiled.memory_analysis()
    if plan is None:
        raise RuntimeError(f"the {jax.default_backend()} backend has no memory analysis: take another by JAX_PLATFORMS")
    return plan.temp_size_in_bytes
