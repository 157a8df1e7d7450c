"""What a resumed run does as before, and what otherwise: said in one line before it goes on."""

from collections.abc import Iterator, Mapping
from typing import Any

from refgrad.train.run import machine
from refgrad.train.run.folder import METRICS, RUN, Record, Run, differences

EXACTLY = "bit for bit as if it had never stopped"


def resumed(
    step: int, about: Mapping[str, Any] | None, before: Record, run: Run, facts: Mapping[str, Any], metrics: str
) -> str:
    """Return the line of a run that goes on at `step`.

    Args:
        step: The step of the checkpoint that it goes on from, 0 without one.
        about: What that checkpoint says beside the state; None without one.
        before: The run as its folder tells it.
        run: The run as it goes on.
        facts: What it is computed on now.
        metrics: The digest of the metrics up to `step`.
    """
    parts = [*(_changed_beside(about, facts, metrics) if about else ()), *_other_settings(about, before, run)]
    if about is None:
        return ", ".join(["there is no checkpoint yet: from the beginning", *parts])
    return f"resumed at step {step:,}, {'; '.join(parts)}" if parts else f"resumed at step {step:,}: {EXACTLY}"


def _changed_beside(about: Mapping[str, Any], facts: Mapping[str, Any], metrics: str) -> Iterator[str]:
    """Yield what is not as it was, the settings aside."""
    if others := machine.differences(about["machine"], facts):
        yield f"within rounding, since other than before: {'; '.join(others)}"
    if about.get("metrics", metrics) != metrics:
        yield f"but {METRICS} is not what was written until then: curve and train.spike go by what it holds"


def _other_settings(about: Mapping[str, Any] | None, before: Record, run: Run) -> Iterator[str]:
    """Yield how the settings differ from those that made the checkpoint, and from run.json."""
    sealed = about is not None and "run" in about
    if about is not None and not sealed:
        yield f"with the settings of {RUN}, since this checkpoint is from before they were sealed in it"
    if changes := differences(Run.from_data(about["run"]) if about and sealed else before.stated, run):
        yield f"with other settings: {'; '.join(changes)}"
    lines = [] if before.sealed else differences(run, before.stated)
    if lines or before.sealed is False:
        yield f"while {RUN} has been edited" + (f", which is not followed: {'; '.join(lines)}" if lines else "")
