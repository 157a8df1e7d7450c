"""The experiments: each script of the checkout run as its own process, and the card that it leaves."""

import ast
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from markupsafe import Markup

from refgrad._files import read_toml
from refgrad._text import Table
from refgrad.jaxpr.scaffold import FLAGS
from refgrad.report.cells import CHECKOUT, coded
from refgrad.report.sections.section import Section, Shown

# The tests of four rooms, a gigabyte of text, a compiler of its own, 24 gigabytes: more than the page's ten minutes.
LARGE = frozenset(["planted_faults", "tokenise_1gb", "tpu", "train_1558m"])
LONG = frozenset(["mutants", "world_rules"])  # a quarter of an hour whole: the page has its quick form
SLOW = frozenset(
    ["checkpointing", "decision_boundaries", "gradient_flow", "less_memory", "predict_here", "verify_time"]
)  # 10 s and more, if quick


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
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        words = [sys.executable, str(script), *(["--quick"] if quick else []), "--out", str(out)]
        flags = os.environ.get("XLA_FLAGS", "")
        if "rounds" in read_toml(CHECKOUT / "configs" / "experiments" / f"{script.stem}.toml"):
            flags = flags.replace(FLAGS, "")  # it times itself
        env = {**os.environ, "XLA_FLAGS": flags}
        ran = subprocess.run(words, cwd=CHECKOUT, env=env, capture_output=True, text=True)
        path = out / f"{script.stem}.json"
        if not path.exists():
            end = "\n".join((ran.stderr or ran.stdout).strip().splitlines()[-8:])
            raise RuntimeError(f"{script.name} left no card (exit code {ran.returncode}):\n{end}")
        return shown(json.loads(path.read_text()), out, ran.returncode == 0)


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
