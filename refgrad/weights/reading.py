"""A GPT-2 folder → parameters and config.

Every header is held against the config before the first tensor is read. The files are memory-mapped and handed to JAX
one tensor after another: beyond the parameters, memory holds one tensor.
"""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from refgrad._extras import install
from refgrad.models.gpt2 import Config, Params, shapes
from refgrad.models.inputs import path_name
from refgrad.weights import sealing
from refgrad.weights.config_json import read_config, read_json
from refgrad.weights.names import BUFFER, CONFIG, DTYPES, EMBEDDING, HEAD, INDEX, PREFIX, WEIGHTS, parameter_shapes

try:
    from safetensors import SafetensorError, safe_open
except ImportError as error:
    raise ImportError(f"refgrad.weights needs safetensors: {install('train')}") from error


class Stored(NamedTuple):
    """A tensor in an open file: the file's path, its handle, the name there, what header and metadata say of it."""

    path: Path
    handle: Any
    name: str
    shape: tuple[int, ...]
    dtype: str
    seal: sealing.Seal

    def read(self) -> np.ndarray:
        """Return its values. Raises ValueError where the file cannot give them, or not those that were written."""
        try:
            values = self.handle.get_tensor(self.name)
        except SafetensorError as error:
            raise ValueError(f"{self.path}: {self.name} cannot be read ({error}): fetch the file again") from error
        sealed = self.seal.digests.get(self.name)
        if sealed is not None and sealed != sealing.digest(values):
            raise ValueError(f"{self} is not what was written: the file is damaged, fetch it again")
        return values

    def __str__(self) -> str:
        return f"{self.path}: {self.name}"


def load(path: str | Path) -> tuple[Params, Config]:
    """Read a GPT-2 folder: `config.json` and `model.safetensors`, or its shards and their index.

    Names may have the prefix "transformer." or not. Masks stored as buffers are ignored, and so is a stored head that
    equals the tied embedding.

    Args:
      path: the folder.

    Returns:
      (params, config). The parameters are those of `gpt2.init`, layers as a list, on JAX's default device, in the dtype
      that the file stores (float32, bfloat16, float16; float64 where JAX has 64-bit types on), bit for bit.

    Raises:
      ValueError: for a missing or damaged file, a missing, extra or misshapen tensor, one of another type, and a config
        that this model does not implement. It names the file and the tensor or key, its value and what was meant.

    Example:
      >>> import jax
      >>> import tempfile
      >>> from refgrad import weights
      >>> from refgrad.models import gpt2
      >>> config = gpt2.Config(n_layer=1, n_embd=4, n_head=2, n_positions=4, vocab_size=8)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     weights.save(f"{folder}/model", gpt2.init(jax.random.key(0), config), config)
      ...     weights.load(f"{folder}/model")[1] == config
      True
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: give one with {CONFIG} and {WEIGHTS}")
    config = read_config(folder / CONFIG)
    with ExitStack() as opened:
        tensors = _parameters(folder, opened)
        if config.tie_word_embeddings and HEAD in tensors:
            _check_tied(tensors.pop(HEAD), tensors.get(EMBEDDING))
        if config.n_layer > len(tensors):  # the names of so many layers are not made
            raise ValueError(
                f"{folder / CONFIG}: n_layer is {config.n_layer}, but the folder has {len(tensors)} tensors in all: "
                f"correct {CONFIG}, or fetch the files again"
            )
        _check_names(folder, tensors, parameter_shapes(config))
        _check_types(tensors, parameter_shapes(config))
        _check_config(folder / CONFIG, tensors, config)
        params = jax.tree_util.tree_map_with_path(lambda path, _: _on_device(tensors[path_name(path)]), shapes(config))
    return params, config


def _on_device(stored: Stored) -> jax.Array:
    """The tensor as JAX's; waits, so that no more than one is held in both."""
    return jax.block_until_ready(jax.device_put(stored.read()))


def _parameters(folder: Path, opened: ExitStack) -> dict[str, Stored]:
    """Every tensor of the folder but its buffers, by its name without prefix; its files stay open in `opened`."""
    tensors: dict[str, Stored] = {}
    for file, names in _files(folder).items():
        handle = opened.enter_context(_open(file))
        there, seal = set(handle.keys()), _seal(file, handle)
        for name in sorted(there if names is None else names ^ there):
            if names is not None:
                where = f"{folder / INDEX} does not place it there" if name in there else "it is not there"
                raise ValueError(f"{file}: {name}: {where}: fetch the files and their index again, together")
        for name in sorted(there):
            plain = name.removeprefix(PREFIX)
            if BUFFER.fullmatch(plain):
                continue
            header = handle.get_slice(name)
            stored = Stored(file, handle, name, tuple(header.get_shape()), header.get_dtype(), seal)
            if plain in tensors:
                raise ValueError(f"{stored} and {tensors[plain]} are the same parameter: keep one of them")
            tensors[plain] = stored
    return tensors


def _files(folder: Path) -> dict[Path, set[str] | None]:
    """The files that hold tensors, each with the names that the index places there, or None without an index."""
    if (folder / WEIGHTS).exists():
        return {folder / WEIGHTS: None}
    if not (folder / INDEX).exists():
        others = sorted(file.name for file in folder.glob("*.bin"))
        instead = f"; {others[0]} is a pickle: convert it by save_pretrained" if others else ""
        raise ValueError(f"{folder} has neither {WEIGHTS} nor {INDEX}: fetch one of them{instead}")
    places = read_json(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(file, str) for file in places.values()):
        raise ValueError(f"{folder / INDEX}: weight_map must map names of tensors to files: fetch it again")
    files: dict[Path, set[str] | None] = {}
    for file in sorted(set(places.values())):
        if Path(file).name != file:
            raise ValueError(f"{folder / INDEX}: weight_map names {file!r}, but shards lie in the folder itself")
        files[folder / file] = {name for name, place in places.items() if place == file}
    return files


def _open(file: Path) -> Any:
    """The file, memory-mapped. Raises ValueError where it is missing or no whole safetensors file."""
    if not file.is_file():
        raise ValueError(f"{file} is missing: fetch it, or the whole folder again")
    try:
        return safe_open(file, framework="np")
    except SafetensorError as error:
        raise ValueError(
            f"{file} is cut short or no safetensors file ({error}; {file.stat().st_size} bytes): fetch it again"
        ) from error


def _seal(file: Path, handle: Any) -> sealing.Seal:
    try:
        return sealing.read(handle.metadata())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: its metadata are damaged ({error}): fetch it again") from error


def _check_config(path: Path, tensors: Mapping[str, Stored], config: Config) -> None:
    """The config is the one that the files were written with, as far as they say."""
    for stored in tensors.values():
        if found := sealing.difference(stored.seal, config):
            key, now, sealed = found
            raise ValueError(
                f"{path}: {key} is {json.dumps(now)}, but {stored.path} was written with {json.dumps(sealed)}: put "
                "that back, or write a model of other settings by refgrad.weights.save"
            )


def _check_tied(head: Stored, embedding: Stored | None) -> None:
    """A stored head that the config calls tied must be the embedding, or it is not clear which of them is meant."""
    if embedding is None:
        return
    same = head.shape == embedding.shape and head.dtype == embedding.dtype
    if not (same and np.array_equal(head.read().view(np.uint8), embedding.read().view(np.uint8))):
        raise ValueError(
            f"{head} is not {embedding.name}, but {CONFIG} says tie_word_embeddings = true: set it to false to use "
            "the stored head, or remove the head to use the embedding"
        )


def _check_names(folder: Path, tensors: Mapping[str, Stored], meant: Mapping[str, tuple[int, ...]]) -> None:
    """Every parameter is there, and nothing else."""
    missing, extra = ([name for name in a if name not in b] for a, b in ((meant, tensors), (tensors, meant)))
    if missing:
        tied = "; or set tie_word_embeddings to true, if it is the embedding" if missing == [HEAD] else ""
        raise ValueError(
            f"{folder} has no tensor {missing[0]} of shape {meant[missing[0]]}, which {CONFIG} means"
            f"{_and_more(missing)}: fetch the files again, or correct {CONFIG}{tied}"
        )
    if extra:
        raise ValueError(
            f"{tensors[extra[0]]} of shape {tensors[extra[0]].shape} is not a parameter of the model that "
            f"{CONFIG} means{_and_more(extra)}: correct {CONFIG}, or remove the tensor"
        )


def _and_more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more like it)" if len(names) > 1 else ""


def _check_types(tensors: Mapping[str, Stored], meant: Mapping[str, tuple[int, ...]]) -> None:
    """Shapes are the config's, and all tensors have one dtype, a floating one that JAX can hold here."""
    first = tensors[EMBEDDING]
    for name, stored in tensors.items():
        if stored.shape != meant[name]:
            turned = ": transpose it, weights are stored in × out" if stored.shape == meant[name][::-1] else ""
            raise ValueError(f"{stored} has shape {stored.shape}, but {CONFIG} means {meant[name]}{turned}")
        if stored.dtype not in DTYPES:
            raise ValueError(
                f"{stored} is {stored.dtype}, but parameters are {', '.join(DTYPES)}: convert it to one of them"
            )
        if stored.dtype != first.dtype:
            raise ValueError(
                f"{stored} is {stored.dtype}, but {first.name} is {first.dtype}: convert all tensors to one of them"
            )
    dtype = np.dtype(DTYPES[first.dtype])
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise ValueError(
            f"{first} is {first.dtype}, but JAX's 64-bit types are off: load it under jax.enable_x64(True), or convert "
            "the tensors to F32"
        )
