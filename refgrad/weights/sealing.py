"""A safetensors file that names its model and holds a digest of every tensor.

    8 bytes: length of the header, little-endian · header, JSON · the tensors' bytes, one after another

Config and digests stand in the header's metadata, which others ignore. A flipped bit in a tensor, or a `config.json`
that means another model of the same shapes, is seen when the folder is loaded. Files of other writers have no such
metadata. (safetensors' own writer has no fixed order of metadata: two files of one model would differ.)
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refgrad.models.gpt2 import Config
from refgrad.weights.names import DTYPES

CONFIG_KEY, DIGESTS_KEY = "refgrad.config", "refgrad.sha256"
CODES = {name: code for code, name in DTYPES.items()}


class Seal(NamedTuple):
    """The config's keys, and a digest by the tensor's stored name; both empty in a file of another writer."""

    config: Mapping[str, Any]
    digests: Mapping[str, str]


def save_file(tensors: Mapping[str, np.ndarray], path: Path, config: Config) -> None:
    """Write tensors of this model, each row after row in memory. Raises OSError where writing fails."""
    digests = {name: digest(values) for name, values in tensors.items()}
    sealed = {CONFIG_KEY: json.dumps(dataclasses.asdict(config)), DIGESTS_KEY: json.dumps(digests)}
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **sealed}}
    end = 0
    for name, values in tensors.items():
        start, end = end, end + values.nbytes
        header[name] = {"dtype": CODES[values.dtype.name], "shape": values.shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors are aligned
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for values in tensors.values():
            file.write(_bytes(values))


def read(metadata: Mapping[str, str] | None) -> Seal:
    """Return what a file's metadata say. Raises ValueError where that cannot be read."""
    found = [json.loads((metadata or {}).get(key, "{}")) for key in (CONFIG_KEY, DIGESTS_KEY)]
    if not all(isinstance(one, dict) for one in found):
        raise ValueError(f"{CONFIG_KEY} and {DIGESTS_KEY} must be objects")
    return Seal(*found)


def digest(values: np.ndarray) -> str:
    """Return the SHA-256 of a tensor: dtype, shape and bytes."""
    found = hashlib.sha256(f"{values.dtype.name}{values.shape}".encode())
    found.update(_bytes(values))
    return found.hexdigest()


def difference(seal: Seal, config: Config) -> tuple[str, Any, Any] | None:
    """Return (key, value in `config`, sealed value) of the first that is not as sealed; None where all are."""
    now = dataclasses.asdict(config)
    return next(((key, now.get(key), value) for key, value in seal.config.items() if now.get(key) != value), None)


def _bytes(values: np.ndarray) -> memoryview:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
