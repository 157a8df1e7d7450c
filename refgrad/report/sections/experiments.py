"""The experiments: each script of the checkout run, and the card that it leaves."""

import ast
import contextlib
import io
import json
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
from markupsafe import Markup

from refgrad._files import read_toml
from refgrad._text import Table
from refgrad.jaxpr.scaffold import FLAGS
from refgrad.report.cells import CHECKOUT, coded
from refgrad.report.sections.section import Section, Shown

# The tests of four rooms, a gigabyte of text, a device or compiler of its own, 24 GB: more than the page's ten minutes.
LARGE = frozenset(["on_gpu", "planted_faults", "tokenise_1gb", "tpu", "train_1558m"])
LONG = frozenset(["mutants", "world_rules"])  # a quarter of an hour whole: the page has its quick form
MEASURED = frozenset(["count_time"])  # it reads the memory of its own process
SLOW = frozenset(  # 10 s and more, if quick
    [
        "checkpointing",
        "decision_boundaries",
        "gradient_flow",
        "less_memory",
        "predict_here",
        "verify_time",
        "xla_settings",
    ]
)


def scripts() -> list[Path]:
    """The checkout's experiments; none where the package is installed alone."""
    return sorted((CHECKOUT / "experiments").glob("[a-z]*.py"))


def absent() -> Section:
    """The section that replaces the experiments where the package alone is installed."""
    about = "The experiments are scripts of the repository, which is not here: the package alone is installed."
    return Section("Not run", about=about, ran=False)


def named(script: Path) -> Section:
    """An experiment that a page does not wait for: its question."""
    text = ast.get_docstring(ast.parse(script.read_text())) or ""
    question, explanation, *_ = (" ".join(part.split()) for part in text.split("\n\n"))
    about = f"Not run for this page, which it would hold up. {explanation}"
    return Section(coded(question), about=about, ran=False)


def experiment(script: Path, quick: bool) -> Section:
    """Run one script and show its card, its figures inline.

    Raises RuntimeError, with the end of what the script wrote, where it leaves no card.
    """
    rounds = "rounds" in read_toml(CHECKOUT / "configs" / "experiments" / f"{script.stem}.toml")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        words = [str(script), *(["--quick"] if quick else []), "--out", str(out)]
        alone = rounds or script.stem in MEASURED or not quick
        code, written = _in_a_process(words, timed=rounds) if alone else _here(words)
        path = out / f"{script.stem}.json"
        if not path.exists():
            end = "\n".join(written.strip().splitlines()[-8:])
            raise RuntimeError(f"{script.name} left no card (exit code {code}):\n{end}")
        return shown(json.loads(path.read_text()), out, code == 0)


def _in_a_process(words: list[str], timed: bool) -> tuple[int, str]:
    """Run a script in a process of its own; `timed` programs are compiled as users compile them."""
    flags = os.environ.get("XLA_FLAGS", "")
    env = {**os.environ, "XLA_FLAGS": flags.replace(FLAGS, "") if timed else flags}
    ran = subprocess.run([sys.executable, *words], cwd=CHECKOUT, env=env, capture_output=True, text=True)
    return ran.returncode, ran.stderr or ran.stdout


def _here(words: list[str]) -> tuple[int, str]:
    """Run a script in this process, where JAX is imported already: half of a quick experiment is its start."""
    written, before = io.StringIO(), (sys.argv, list(sys.path))
    sys.argv, sys.path[:0] = words, [str(Path(words[0]).parent)]
    try:
        with (
            contextlib.redirect_stdout(written),
            contextlib.redirect_stderr(written),
            contextlib.chdir(CHECKOUT),
            jax.enable_x64(False),
        ):
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        return int(bool(end.code)), written.getvalue()
    finally:
        sys.argv, sys.path[:] = before
    return 0, written.getvalue()


def shown(card: dict, folder: Path, ok: bool) -> Section:
    """A card as a section; `folder` holds its figures."""
    figures = [{**figure, "svg": Markup((folder / figure["file"]).read_text())} for figure in card["figures"]]
    explanation = [coded(" ".join(part.split())) for part in card["explanation"].split("\n\n") if part.strip()]
    table = Table(card["table"]["header"], card["table"]["rows"])
    data = {
        "card": card,
        "figures": figures,
        "answer": [coded(line) for line in card["answer"]],
        "explanation": explanation,
        "shown": [Shown("What was measured", table)],
    }
    return Section(coded(card["question"]), data, "experiment.html.j2", ok=ok and card["holds"])
