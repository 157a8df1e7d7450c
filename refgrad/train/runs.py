"""The folder of a run, and what is asked of one afterwards.

run.json        model, tokenizer, corpus, settings, sealed: written at the beginning, and anew where a resumed run
                changes them
metrics.jsonl   a line a step (`metrics.py`)
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
from refgrad.models._inputs import named_leaves
from refgrad.rule_sets import RENAMED
from refgrad.train.checkpoints import newest, newest_about, seal
from refgrad.train.settings import Settings

RUN, METRICS, CHECKPOINTS = "run.json", "metrics.jsonl", "checkpoints"


class Run(NamedTuple):
    """All that decides what a run computes, the machine aside."""

    settings: Settings
    tokenizer: dict[str, Any]
    """What `tokenizers.from_data` makes the tokenizer from."""
    tokens: str
    """The digest of the tokens."""

    def data(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        settings = self.settings.as_mapping()
        return {"model": settings["model"], "tokenizer": self.tokenizer, "tokens": self.tokens, "settings": settings}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Run":
        """Return the run that `data` describes. Raises ValueError for anything that `data` cannot be."""
        try:
            settings = data["settings"]
            if (rules := _old_rules(data)) is not None:
                settings = {**settings, "train": {**settings["train"], "rules": RENAMED[rules]}}
            found = cls(Settings.from_mapping(settings), data["tokenizer"], data["tokens"])
        except KeyError as error:
            raise ValueError(f"it has no {error}") from error
        except (TypeError, AttributeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error
        if not isinstance(found.tokenizer, dict) or not all(isinstance(x, str) for x in found.tokenizer.values()):
            raise ValueError(f"tokenizer is {found.tokenizer!r:.60}, but must be texts by name")
        if not isinstance(found.tokens, str):
            raise ValueError(f"tokens is {found.tokens!r:.60}, but must be a text")
        return found


class Record(NamedTuple):
    """A run as its folder tells it."""

    stated: Run
    """By run.json."""
    sealed: bool | None
    """Whether run.json is what was written; None for one from before it had a seal."""
    ran: Run | None
    """By the newest checkpoint; None without one, or for one from before it had this record."""
    notice: str | None = None
    """One line for a run that is stored with an old name."""

    @property
    def run(self) -> Run:
        """The run to go on with: that of run.json where nobody else has changed it, else the checkpoint's."""
        return self.stated if self.sealed or self.ran is None else self.ran


class Trained(NamedTuple):
    """What a run has learnt so far."""

    params: gpt2.Params
    config: gpt2.Config
    tokenizer: dict[str, Any]
    step: int


def _old_rules(data: Mapping[str, Any]) -> str | None:
    """Return the old name by which a stored run has its rules, if it has one."""
    rules = data["settings"].get("train", {}).get("rules")
    return rules if rules in RENAMED else None


def differences(before: Run, now: Run) -> list[str]:
    """Return every key that is not the same, a line each: `section.key: old → new`."""
    (old, new), lines = (run.settings.as_mapping() for run in (before, now)), []
    for section, values in new.items():
        lines += [f"{section}.{k}: {old[section][k]!r} → {v!r}" for k, v in values.items() if old[section][k] != v]
    lines += [name for name in ("tokenizer", "tokens") if getattr(before, name) != getattr(now, name)]
    return lines


def write(folder: Path, run: Run) -> None:
    """Write run.json, whole or not at all."""
    write_json(folder / RUN, {**run.data(), "sha256": seal(run.data())})


def refuse(folder: Path) -> None:
    """Raise ValueError where the folder cannot take a new run: it holds one already, or is not a folder."""
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
    """Raise ValueError where `folder` cannot be made, or takes no files."""
    place = folder.absolute()
    while not (place.exists() or place.is_symlink()):
        place = place.parent
    if not place.is_dir():
        raise ValueError(f"{folder} cannot be a folder, since {place} is not one: take another")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"{place} takes no files: allow it (chmod u+rwx), or take another folder")


def read(folder: Path) -> Run:
    """Return the run that run.json states. Raises ValueError where there is none, or where run.json is damaged."""
    return Run.from_data(_read(folder)[0])


def record(folder: Path) -> Record:
    """Return what run.json and the newest checkpoint say. Raises ValueError as `read` does."""
    data, sealed = _read(folder)
    about = newest_about(folder / CHECKPOINTS) or {}
    found = Record(Run.from_data(data), sealed, Run.from_data(about["run"]) if "run" in about else None)
    if old := _old_rules(about.get("run", data)):
        notice = f"train.rules = {old!r} of the run in {folder} is now called {RENAMED[old]!r}"
        found = found._replace(notice=notice)
    return found


def _read(folder: Path) -> tuple[dict[str, Any], bool | None]:
    """Return what run.json holds, which makes a run, and whether it is sealed. Raises as `read` does."""
    path = folder / RUN
    try:
        data = json.loads(path.read_bytes())
        sealed = data.pop("sha256", None)
        Run.from_data(data)
        return data, None if sealed is None else sealed == seal(data)
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no run: there is no {RUN} in it") from None
    except NotADirectoryError:
        raise ValueError(f"{folder} is a file, but a run is a folder") from None
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}): put it back from a copy, or begin again in another folder"
        ) from error


def trained(folder: Path, say: Callable[[str], None] = print) -> Trained:
    """Return the newest good parameters of a run, layers as a list, on this process's first device.

    Model and tokenizer are those that the checkpoint was made with; `say` is told where run.json has others, and of
    damaged checkpoints that are passed over. Raises ValueError where the folder holds no run or no checkpoint,
    CheckpointError where all are damaged.
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
    found = newest(folder / CHECKPOINTS, named_leaves(like), say)
    if found is None:
        raise ValueError(f"{folder} has no checkpoint yet: the first comes after checkpoint.every steps")
    if "run" not in found.about:
        say(f"the checkpoint of step {found.step} has no sealed settings: its model is taken to be that of {RUN}")
    params = jax.tree.unflatten(jax.tree.structure(shapes), list(found.leaves.values()))
    return Trained(gpt2.unstack(params), config, run.tokenizer, found.step)
