"""Parameters and config → a GPT-2 folder that transformers reads, whole or not at all.

The folder is written beside its place and then renamed into it, so that what stood there before stays until the new
one is complete.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refgrad._files import write_json
from refgrad.models.gpt2 import Config, shapes
from refgrad.models.inputs import check_params, named_leaves
from refgrad.weights.config_json import config_json
from refgrad.weights.names import CONFIG, DTYPES, INDEX, WEIGHTS, parameter_shapes, stored_name
from refgrad.weights.sealing import save_file

SHARD_BYTES = 5 * 10**9


def save(path: str | Path, params: Mapping[str, Any], config: Config, shard_bytes: int = SHARD_BYTES) -> None:
    """Write a GPT-2 folder: `config.json` and `model.safetensors`, or shards and their index.

    A model that stands at `path` is replaced once the new one is complete; other files there, such as a tokenizer's,
    are taken over. A process killed meanwhile leaves a folder `path`.N.part (or, in the instant of the exchange, the
    former model as `path`.N.old) beside it, and never half a model.

    Args:
      path: the folder.
      params: those of `gpt2.init`, layers as a list or stacked. They are stored in their dtype, bit for bit, under the
        names of transformers' `GPT2LMHeadModel`; a tied head is not stored.
      config: the parameters' config.
      shard_bytes: the most bytes of a shard; a tensor larger than that has a shard of its own.

    Raises:
      ValueError, TypeError: before anything is written, for parameters that are not this config's or of a dtype that
        checkpoints do not have, for a `shard_bytes` below 1, and for a `path` that holds something else than a model.
      OSError: where writing fails, with `path` as it was.

    Example:
      >>> import jax
      >>> import os
      >>> import tempfile
      >>> from refgrad import weights
      >>> from refgrad.models import gpt2
      >>> config = gpt2.Config(n_layer=1, n_embd=4, n_head=2, n_positions=4, vocab_size=8)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     weights.save(f"{folder}/model", gpt2.init(jax.random.key(0), config), config)
      ...     sorted(os.listdir(f"{folder}/model"))
      ['config.json', 'model.safetensors']
    """
    check_params(params, shapes(config))
    dtype = _dtype(params)
    if shard_bytes < 1:
        raise ValueError(f"shard_bytes is {shard_bytes}, but a shard has at least 1 byte: leave it out for 5 GB")
    target = Path(os.path.realpath(path))
    check_target(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed and had this one's number
    try:
        part.mkdir()
        _write(part, params, config, dtype, shard_bytes)
        _take_over(target, part)
        _exchange(part, target)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}: nothing was left there", str(path)) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _dtype(params: Mapping[str, Any]) -> str:
    """The dtype of all leaves as they lie in memory: NumPy's may be wider than JAX reads them."""
    dtypes = sorted({leaf.dtype.name for leaf in jax.tree.leaves(params)})
    if len(dtypes) > 1 or dtypes[0] not in DTYPES.values():
        raise ValueError(f"params are {', '.join(dtypes)}, but must be one of {', '.join(DTYPES.values())}: cast them")
    return dtypes[0]


def check_target(target: Path) -> None:
    """Raise ValueError unless `target` holds a model or does not exist."""
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is a file, but a model is a folder: give another path")
    if target.is_dir() and any(target.iterdir()) and not (target / CONFIG).is_file():
        raise ValueError(f"{target} holds other things than a model (no {CONFIG}): give a new folder")


def _write(folder: Path, params: Mapping[str, Any], config: Config, dtype: str, shard_bytes: int) -> None:
    """The files of the model, one shard's tensors in memory at a time."""
    write_json(folder / CONFIG, config_json(config, dtype))
    leaves = named_leaves(params)
    sizes = {name: int(np.prod(shape)) * jnp.dtype(dtype).itemsize for name, shape in parameter_shapes(config).items()}
    shards = list(_shards(sizes, shard_bytes))
    places = {}
    for n, names in enumerate(shards, 1):
        file = WEIGHTS if len(shards) == 1 else f"model-{n:05}-of-{len(shards):05}.safetensors"
        save_file({stored_name(name): _values(leaves, name) for name in names}, folder / file, config)
        places |= {stored_name(name): file for name in names}
    if len(shards) > 1:
        write_json(folder / INDEX, {"metadata": {"total_size": sum(sizes.values())}, "weight_map": places})


def _shards(sizes: Mapping[str, int], limit: int) -> Iterator[list[str]]:
    """The names in order, cut before a tensor that would take its shard over `limit` bytes."""
    shard: list[str] = []
    total = 0
    for name, size in sizes.items():
        if shard and total + size > limit:
            yield shard
            shard, total = [], 0
        shard.append(name)
        total += size
    yield shard


def _values(leaves: Mapping[str, Any], name: str) -> np.ndarray:
    """A parameter's values, row after row in memory: the file holds the memory as it lies."""
    if name in leaves:
        return np.ascontiguousarray(leaves[name])
    _, layer, rest = name.split(".", 2)  # stacked: "h.3.ln_1.weight" is row 3 of "h.ln_1.weight"
    return np.ascontiguousarray(np.asarray(leaves[f"h.{rest}"])[int(layer)])


def _take_over(target: Path, part: Path) -> None:
    """Copy the files at `target` that are not a model's own."""
    own = shutil.ignore_patterns(CONFIG, WEIGHTS, INDEX, "model-*-of-*.safetensors")
    if target.is_dir():
        shutil.copytree(
            target,
            part,
            symlinks=True,
            ignore=lambda folder, names: own(folder, names) if Path(folder) == target else (),
            dirs_exist_ok=True,
        )


def _exchange(part: Path, target: Path) -> None:
    """Put `part` in the place of `target`; where that fails, `target` stays."""
    if not target.exists():
        os.rename(part, target)
        return
    former = target.with_name(f"{target.name}.{os.getpid()}.old")
    os.rename(target, former)
    try:
        os.rename(part, target)
    except BaseException:
        os.rename(former, target)
        raise
    shutil.rmtree(former)
