"""The settings that a resumed run may change, and a line that says how it differs from the run before."""

from collections.abc import Iterator, Mapping
from typing import Any

from refgrad.train.run import machine
from refgrad.train.run.folder import METRICS, RUN, Record, Run, differences
from refgrad.train.settings import Settings

EXACTLY = "bit for bit as if it had never stopped"
FREE = ("checkpoint", "mesh")  # sections that may change
FIXED = ("batch", "sequence", "scan", "seed")  # keys of [train] that may not


def check_resumable(before: Settings, now: Settings) -> None:
    """Raise ValueError for a key that cannot change within a run.

    These are the keys of [model] and [data], and those of [train] that decide which tokens a step sees or how the state
    is laid out.
    """
    old, new = before.as_mapping(), now.as_mapping()
    for section in new:
        for key in new[section] if section not in FREE else ():
            if new[section][key] != old[section][key] and (section != "train" or key in FIXED):
                raise ValueError(
                    f"{section}.{key} is {new[section][key]!r}, but the run began with {old[section][key]!r}, and that "
                    "cannot change within a run: leave it as it was, or start another run with another --out"
                )


def resumed(
    step: int, about: Mapping[str, Any] | None, before: Record, run: Run, facts: Mapping[str, Any], metrics: str
) -> str:
    """Return the line of a run that goes on at `step`.

    Args:
        step: The step of the checkpoint that it goes on from, 0 without one.
        about: The metadata of that checkpoint; None without one.
        before: The run as its folder records it.
        run: The run as it goes on.
        facts: The facts of the machine now.
        metrics: The digest of the metrics up to `step`.
    """
    parts = [*(_changed_beside(about, facts, metrics) if about else ()), *_other_settings(about, before, run)]
    if about is None:
        return ", ".join(["no checkpoint is written yet: from the beginning", *parts])
    return f"resumed at step {step:,}, {'; '.join(parts)}" if parts else f"resumed at step {step:,}: {EXACTLY}"


def _changed_beside(about: Mapping[str, Any], facts: Mapping[str, Any], metrics: str) -> Iterator[str]:
    """Yield the changes of machine and metrics."""
    if others := machine.differences(about["machine"], facts):
        yield f"within rounding, since other than before: {'; '.join(others)}"
    if about.get("metrics", metrics) != metrics:
        yield f"but {METRICS} is not what was written until then: curve and train.spike go by what it holds"


def _other_settings(about: Mapping[str, Any] | None, before: Record, run: Run) -> Iterator[str]:
    """Yield the differences of the settings from those that made the checkpoint, and from run.json."""
    sealed = about is not None and "run" in about
    if about is not None and not sealed:
        yield f"with the settings of {RUN}, since this checkpoint is from before they were sealed in it"
    if changes := differences(Run.from_data(about["run"]) if about and sealed else before.stated, run):
        yield f"with other settings: {'; '.join(changes)}"
    lines = [] if before.sealed else differences(run, before.stated)
    if lines or before.sealed is False:
        yield f"while {RUN} has been edited" + (f", which is not followed: {'; '.join(lines)}" if lines else "")
