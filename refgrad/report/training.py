"""Output of `refgrad train` at its end: the model beside n-gram models, and the curve of its loss."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from refgrad._text import Table
from refgrad.report import figures
from refgrad.train.run.evaluate import Evaluation

NONE = "–"
SHOWN = 400
"""Characters of a sample that are printed; all are in samples.txt."""


def table(found: Evaluation) -> Table:
    """A line a model: loss on the held-out tokens, its share of the bigram's, lines that Python's tokenizer accepts."""
    losses = {"GPT-2": found.loss, **dict(reversed(found.ngrams.items()))}
    reference = found.ngrams.get("bigram")
    rows = []
    for name in dict.fromkeys([*losses, *found.lines]):
        loss, lines = losses.get(name), found.lines.get(name)
        rows.append(
            [
                name,
                NONE if loss is None else f"{loss:.4f}",
                NONE if loss is None or reference is None else f"{loss / reference:.3f}",
                NONE if lines is None else f"{lines.share:.1%}",
                NONE if lines is None else f"{lines.lines:,}",
            ]
        )
    return Table(["model", "loss", "loss / bigram's", "lines accepted", "of lines"], rows)


def legend(found: Evaluation) -> str:
    """Name the text that the table's figures are measured on."""
    python = next((lines.python for lines in found.lines.values()), "")
    text = f"loss: nats a token over {found.tokens:,} held-out tokens of {found.source} (corpus {found.corpus[:12]})"
    return f"{text}\nlines accepted: by the tokenizer of Python {python}, each line alone" if python else text


def data(found: Evaluation) -> dict[str, Any]:
    """All of it, as JSON holds it."""
    lines = {name: lines._asdict() for name, lines in found.lines.items()}
    return {**vars(found), "lines": lines}


def sample(found: Evaluation) -> str:
    """The beginning of the first sample."""
    return f"A sample:\n\n{found.samples[0][:SHOWN]}" if found.samples else ""


def draw(lines: Sequence[Mapping[str, Any]], found: Evaluation, path: Path) -> None:
    """The loss of training and validation against the steps, the n-gram models' as level lines.

    Raises ModuleNotFoundError, naming the extra, without matplotlib.
    """
    steps = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    checks = [(line["step"], line["validation_loss"]) for line in lines if "validation_loss" in line]
    levels = ", ".join(f"the {name}'s is {loss:.3f}" for name, loss in found.ngrams.items())
    alt = (
        f"Training loss falls from {steps[0][1]:.3f} to {steps[-1][1]:.3f} nats a token in {steps[-1][0]:,} steps; "
        f"validation loss ends at {checks[-1][1]:.3f}" + (f"; {levels}." if levels else ".")
    )
    with figures.draw(path, f"Loss of a GPT-2 on {found.source}", alt) as axes:
        axes.plot(*zip(*steps, strict=True), color=figures.SKY, linewidth=0.8, label="training, each step")
        axes.plot(*zip(*checks, strict=True), color=figures.BLUE, marker="o", label="validation")
        styles = [(figures.VERMILLION, "--"), (figures.GREEN, "-.")][: len(found.ngrams)]
        for (name, loss), (color, dash) in zip(found.ngrams.items(), styles, strict=True):
            axes.axhline(loss, color=color, linestyle=dash, label=f"{name}, {loss:.3f}")
        axes.set(xlabel="step", ylabel="loss (nats a token)")
        figures.legend_below(axes)
