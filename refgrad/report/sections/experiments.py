"""The experiments: each script of the checkout run as its own process, and the card that it leaves."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from markupsafe import Markup

import refgrad
from refgrad._text import Table
from refgrad.report.mathml.prose import sentence
from refgrad.report.sections.section import Section, Shown

CHECKOUT = Path(refgrad.__file__).parent.parent


def scripts() -> list[Path]:
    """The checkout's experiments, which are those with settings; none where the package is installed alone."""
    settings = {path.stem for path in (CHECKOUT / "configs" / "experiments").glob("*.toml")}
    return sorted(path for path in (CHECKOUT / "experiments").glob("[a-z]*.py") if path.stem in settings)


def absent() -> Section:
    """What stands in the experiments' place where there is no checkout."""
    about = "The experiments are scripts of the repository, which is not here: the package alone is installed."
    return Section("Not run", about=about)


def experiment(script: Path, quick: bool) -> Section:
    """Run one script and show its card, its figures inline.

    Raises RuntimeError, with the end of what the script wrote, where it leaves no card.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        words = [sys.executable, str(script), *(["--quick"] if quick else []), "--out", str(out)]
        ran = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True)
        path = out / f"{script.stem}.json"
        if not path.exists():
            end = "\n".join((ran.stderr or ran.stdout).strip().splitlines()[-8:])
            raise RuntimeError(f"{script.name} left no card (exit code {ran.returncode}):\n{end}")
        return shown(json.loads(path.read_text()), out, ran.returncode == 0)


def shown(card: dict, folder: Path, ok: bool) -> Section:
    """A card as a section; `folder` holds its figures."""
    figures = [{**figure, "svg": Markup((folder / figure["file"]).read_text())} for figure in card["figures"]]
    explanation = [sentence(" ".join(part.split())) for part in card["explanation"].split("\n\n") if part.strip()]
    table = Table(card["table"]["header"], card["table"]["rows"])
    data = {
        "card": card,
        "figures": figures,
        "answer": [sentence(line) for line in card["answer"]],
        "explanation": explanation,
        "shown": [Shown("What was measured", table)],
    }
    return Section(card["question"], data, "experiment.html.j2", ok=ok and card["holds"])
