"""The folder of a run: its record, and its newest model.

run.json        model, tokenizer, corpus and settings, with a seal: written at the beginning, and again if a resumed run
                changes them
metrics.jsonl   a line per step (`metrics.py`)
checkpoints/    the states, each with the run that made it (`checkpoints.py`)
loss.svg, samples.txt, result.json   written at the end
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from refgrad._files import write_json
from refgrad.models import gpt2
from refgrad.models.inputs import named_leaves
from refgrad.rule_sets import RENAMED
from refgrad.train.run.restore import newest, newest_about
from refgrad.train.run.storage import seal
from refgrad.train.settings import Settings

RUN, METRICS, CHECKPOINTS = "run.json", "metrics.jsonl", "checkpoints"


class Run(NamedTuple):
    """Everything that determines a run's result, except the machine."""

    settings: Settings
    tokenizer: dict[str, Any]
    """The data from which `tokenizers.from_data` makes the tokenizer."""
    tokens: str
    """The digest of the tokens."""

    def data(self) -> dict[str, Any]:
        """Return the run as plain data for JSON."""
        settings = self.settings.as_mapping()
        return {"model": settings["model"], "tokenizer": self.tokenizer, "tokens": self.tokens, "settings": settings}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Run":
        """Return the run that `data` describes. Raise ValueError for anything that `data()` cannot return."""
        try:
            settings = data["settings"]
            if (rules := _old_rules(data)) is not None:
                settings = {**settings, "train": {**settings["train"], "rules": RENAMED[rules]}}
            run = cls(Settings.from_mapping(settings), data["tokenizer"], data["tokens"])
        except KeyError as error:
            raise ValueError(f"it has no {error}") from error
        except (TypeError, AttributeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error
        if not isinstance(run.tokenizer, dict) or not all(isinstance(x, str) for x in run.tokenizer.values()):
            raise ValueError(f"tokenizer is {run.tokenizer!r:.60}, but must be texts by name")
        if not isinstance(run.tokens, str):
            raise ValueError(f"tokens is {run.tokens!r:.60}, but must be a text")
        return run


class Record(NamedTuple):
    """A run as its folder records it."""

    stated: Run
    """The run by run.json."""
    sealed: bool | None
    """True if run.json is unchanged, False if it has been edited; None for one from before seals."""
    ran: Run | None
    """The run by the newest checkpoint; None without one, or for one from before it had this record."""
    notice: str | None = None
    """One line for a run that is stored with an old name."""

    @property
    def run(self) -> Run:
        """The run to go on with: that of run.json if it is unchanged, else the checkpoint's."""
        return self.stated if self.sealed or self.ran is None else self.ran


class LoadedModel(NamedTuple):
    """The model of a run's checkpoint."""

    params: gpt2.Params
    """Layers are a list."""
    config: gpt2.Config
    tokenizer: dict[str, Any]
    """The data from which `tokenizers.from_data` makes the tokenizer."""
    step: int


def _old_rules(data: Mapping[str, Any]) -> str | None:
    """Return the old name by which a stored run has its rules, if it has one."""
    rules = data["settings"].get("train", {}).get("rules")
    return rules if rules in RENAMED else None


def differences(before: Run, now: Run) -> list[str]:
    """Return a line for each key that differs: `section.key: old → new`."""
    (old, new), lines = (run.settings.as_mapping() for run in (before, now)), []
    for section, values in new.items():
        lines += [f"{section}.{k}: {old[section][k]!r} → {v!r}" for k, v in values.items() if old[section][k] != v]
    lines += [name for name in ("tokenizer", "tokens") if getattr(before, name) != getattr(now, name)]
    return lines


def write(folder: Path, run: Run) -> None:
    """Write run.json, whole or not at all."""
    write_json(folder / RUN, {**run.data(), "sha256": seal(run.data())})


def refuse(folder: Path) -> None:
    """Raise ValueError if the folder cannot take a new run: it holds one already, or is not a folder."""
    if (folder / RUN).exists():
        raise ValueError(
            f"{folder} holds a run already: go on with it by --resume, take another folder by --out, or remove it"
        )
    if (folder / CHECKPOINTS).exists() or (folder / METRICS).exists():
        raise ValueError(
            f"{folder} holds checkpoints or metrics, but no {RUN}: put that back and go on by --resume, or take "
            "another folder by --out"
        )
    check_folder(folder)


def check_folder(folder: Path) -> None:
    """Raise ValueError if the folder cannot be made or written."""
    place = folder.absolute()
    while not (place.exists() or place.is_symlink()):
        place = place.parent
    if not place.is_dir():
        raise ValueError(f"{folder} cannot be a folder, since {place} is not one: take another")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"{place} takes no files: allow it (chmod u+rwx), or take another folder")


def read(folder: Path) -> Run:
    """Return the run that run.json states. Raise ValueError if the file is missing or damaged."""
    return Run.from_data(_read(folder)[0])


def record(folder: Path) -> Record:
    """Return the run that run.json and the newest checkpoint record. Raises ValueError as `read` does."""
    data, sealed = _read(folder)
    about = newest_about(folder / CHECKPOINTS) or {}
    recorded = Record(Run.from_data(data), sealed, Run.from_data(about["run"]) if "run" in about else None)
    if old := _old_rules(about.get("run", data)):
        notice = f"train.rules = {old!r} of the run in {folder} is now called {RENAMED[old]!r}"
        recorded = recorded._replace(notice=notice)
    return recorded


def _read(folder: Path) -> tuple[dict[str, Any], bool | None]:
    """Return what run.json holds, which makes a run, and whether it is sealed. Raises as `read` does."""
    path = folder / RUN
    try:
        data = json.loads(path.read_bytes())
        sealed = data.pop("sha256", None)
        Run.from_data(data)
        return data, None if sealed is None else sealed == seal(data)
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no run: it has no {RUN}") from None
    except NotADirectoryError:
        raise ValueError(f"{folder} is a file, but a run is a folder") from None
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}): put it back from a copy, or begin again in another folder"
        ) from error


def load_model(folder: Path, say: Callable[[str], None] = print) -> LoadedModel:
    """Return the newest good model of a run, on this process's first device.

    Model and tokenizer are those that the checkpoint was made with.

    Args:
        folder: The run's folder.
        say: A function that is told if run.json has another model, and which damaged checkpoints are passed over.

    Raises:
        CheckpointError: All checkpoints are damaged.
        ValueError: The folder holds no run or no checkpoint.
    """
    known = record(folder)
    run = known.ran or known.stated
    if known.notice:
        say(known.notice)
    if known.ran and (ignored := differences(run, known.stated)):
        say(f"{folder / RUN} is not what the checkpoint was made with, and is not followed: {'; '.join(ignored)}")
    config = run.settings.model
    shapes = gpt2.shapes(config)
    shapes = jax.eval_shape(gpt2.stack, shapes) if run.settings.train.scan else shapes
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), {"params": shapes})
    checkpoint = newest(folder / CHECKPOINTS, named_leaves(like), say)
    if checkpoint is None:
        raise ValueError(f"{folder} has no checkpoint yet: the first comes after checkpoint.every steps")
    if "run" not in checkpoint.about:
        say(f"the checkpoint of step {checkpoint.step} has no sealed settings: its model is taken to be that of {RUN}")
    params = jax.tree.unflatten(jax.tree.structure(shapes), list(checkpoint.leaves.values()))
    return LoadedModel(gpt2.unstack(params), config, run.tokenizer, checkpoint.step)
