"""The storage of a checkpoint: its items, orbax's handler of them, and the seal of its metadata."""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

from refgrad._extras import install
from refgrad._files import DISK_FULL
from refgrad.train.optimiser import State

try:
    import orbax.checkpoint as ocp
except ImportError as error:
    raise ImportError(f"checkpoints need orbax-checkpoint: {install('train')}") from error

CONCURRENT_GB = 1
"""Encoded or decoded arrays that orbax may hold at once."""
ABOUT = "metadata"
Leaves = dict[str, Any]


def items_of(leaves: Leaves) -> dict[str, Leaves]:
    """Return the leaves by the item that they are written into, the first part of their names."""
    return {
        item: some for item in State._fields if (some := {n: leaf for n, leaf in leaves.items() if item_of(n) == item})
    }


def item_of(name: str) -> str:
    """Return the item that a leaf is written into, the first part of its name."""
    return name.split(".")[0]


def handler() -> ocp.CompositeCheckpointHandler:
    """Return orbax's handler of a whole checkpoint."""
    arrays: dict[str, Any] = {
        item: ocp.StandardCheckpointHandler(save_concurrent_gb=CONCURRENT_GB, restore_concurrent_gb=CONCURRENT_GB)
        for item in State._fields
    }
    return ocp.CompositeCheckpointHandler(**arrays, about=ocp.JsonCheckpointHandler(ABOUT))


def seal(contents: Mapping[str, Any]) -> str:
    """Return the SHA-256 of plain data, independent of the order of keys."""
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


def reason_of(error: BaseException) -> str:
    """Return the first cause of an error in one line; a full disk by its name."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    text = " ".join(map(str, chain))
    for full in map(os.strerror, DISK_FULL):
        if full in text:
            return f"the disk has no space left for it ({full}): free some, then go on with --resume"
    first = chain[-1]
    return next(iter(str(first).strip().splitlines()), "") if not isinstance(first, KeyError) else f"no {first} in it"
