"""Small runs, for tests of what a run leaves and how it goes on."""

from pathlib import Path

from refgrad.train.run import metrics
from refgrad.train.run.loop import train
from refgrad.train.settings import Settings

TEXT = "def f(x):\n    return x + 1\n\n\nfor n in range(10):\n    print(f(n), 'and', n)\n"
TIMES = ("seconds", "waited")
VALUES = {
    "model": {"n_layer": 1, "n_head": 2, "n_embd": 16, "n_positions": 16},
    "train": {
        "steps": 12,
        "batch": 4,
        "sequence": 16,
        "warmup": 2,
        "rules": "derived",
        "validate_every": 5,
        "validation_batches": 2,
        "samples": 2,
        "sample_tokens": 20,
    },
    "checkpoint": {"every": 4, "keep": 2},
}


def settings(folder: Path, **train) -> Settings:
    """Those of a run of seconds on a text of its own in the folder."""
    text = folder / "text.py"
    if not text.exists():
        text.write_text("".join(f"# {n}\n{TEXT}" for n in range(4000)))
    given = {**VALUES, "data": {"text": [str(text)]}}
    return Settings.from_mapping(given).updated({"train": train})


def run(settings: Settings, out: Path, resume: bool = False):
    """(what was trained, what was said)."""
    said = []
    return train(settings, out, resume, said.append), said


def lines(path: Path) -> list[dict]:
    """The metrics of a run, without times."""
    return [{key: value for key, value in line.items() if key not in TIMES} for line in metrics.read(path)]
