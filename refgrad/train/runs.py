"""The folder of a run, and what is asked of one afterwards.

run.json        model, tokenizer, corpus, settings, the command: written once, at the beginning
metrics.jsonl   a line a step (`metrics.py`)
checkpoints/    the states (`checkpoints.py`)
loss.svg, samples.txt, result.json   written at the end
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from refgrad._files import write_json
from refgrad.models import gpt2
from refgrad.models._inputs import named_leaves
from refgrad.train.checkpoints import newest
from refgrad.train.settings import Settings

RUN, METRICS, CHECKPOINTS = "run.json", "metrics.jsonl", "checkpoints"


class Run(NamedTuple):
    """What a run began with."""

    settings: Settings
    tokenizer: dict[str, Any]
    """What `tokenizers.from_data` makes the tokenizer from."""
    tokens: str
    """The digest of the tokens."""


class Trained(NamedTuple):
    """What a run has learnt so far."""

    params: gpt2.Params
    config: gpt2.Config
    tokenizer: dict[str, Any]
    step: int


def begin(folder: Path, run: Run) -> None:
    """Make the folder of a new run. Raises ValueError where it holds a run already."""
    refuse(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings = run.settings.as_mapping()
    model = settings["model"]
    write_json(
        folder / RUN,
        {"model": model, "tokenizer": run.tokenizer, "tokens": run.tokens, "settings": settings},
    )


def refuse(folder: Path) -> None:
    """Raises ValueError where the folder holds a run, and says the ways out."""
    if (folder / RUN).exists():
        raise ValueError(
            f"{folder} holds a run already: go on with it by --resume, take another folder by --out, or remove it"
        )


def read(folder: Path) -> Run:
    """What the run in the folder began with. Raises ValueError where there is none, or where run.json is damaged."""
    path = folder / RUN
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Run(Settings.from_mapping(data["settings"]), data["tokenizer"], data["tokens"])
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no run: there is no {RUN} in it") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error})") from error


def trained(folder: Path, say: Callable[[str], None] = print) -> Trained:
    """The newest good parameters of a run, layers as a list, on this process's first device.

    `say` is told of damaged checkpoints that are passed over. Raises ValueError where the folder holds no run or no
    checkpoint, CheckpointError where all are damaged.
    """
    run = read(folder)
    config = run.settings.model
    shapes = gpt2.shapes(config)
    shapes = jax.eval_shape(gpt2.stack, shapes) if run.settings.train.scan else shapes
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), {"params": shapes})
    found = newest(folder / CHECKPOINTS, named_leaves(like), say)
    if found is None:
        raise ValueError(f"{folder} has no checkpoint yet: the first comes after checkpoint.every steps")
    params = jax.tree.unflatten(jax.tree.structure(shapes), list(found.leaves.values()))
    return Trained(gpt2.unstack(params), config, run.tokenizer, found.step)
