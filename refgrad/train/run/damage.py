"""The damaged leaves of a checkpoint: those that cannot be read, or whose digest differs from that of the array."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from refgrad.train.run.digest import digests
from refgrad.train.run.storage import CONCURRENT_GB, item_of, ocp

GROUP = 2**28
"""Bytes that are read back at once."""


def damaged(path: Path, facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the leaves under `path` that cannot be read or have changed, in this process alone."""
    alone = ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(), active_processes={jax.process_index()}, barrier_sync_key_prefix="read_back"
    )
    handler = ocp.PyTreeCheckpointHandler(restore_concurrent_gb=CONCURRENT_GB, multiprocessing_options=alone)
    host = jax.local_devices(backend="cpu")[0]
    with ocp.Checkpointer(handler, multiprocessing_options=alone) as reader:
        for names in _groups(facts):
            try:
                arguments = ocp.args.PyTreeRestore(
                    item={name: 0 for name in names},
                    restore_args={name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names},
                    partial_restore=True,
                )
                leaves = reader.restore(path / item_of(names[0]), args=arguments)
            except Exception:
                if len(names) == 1:
                    yield names[0]
                else:
                    for name in names:
                        yield from damaged(path, {name: facts[name]})
                continue
            checked = digests({name: jax.device_put(leaf, host) for name, leaf in leaves.items()})
            yield from (name for name in names if checked[name] != facts[name]["digest"])


def damage_for_all(path: Path, facts: Mapping[str, Any]) -> str | None:
    """Return the first damaged leaf, which process 0 finds and tells all, so that all agree."""
    names = list(facts)
    bad = next(damaged(path, facts), None) if jax.process_index() == 0 else None
    index = int(multihost_utils.broadcast_one_to_all(np.int32(names.index(bad) if bad else -1)))
    return names[index] if index >= 0 else None


def _groups(facts: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield the names in groups of one item each, of at most `GROUP` bytes unless one leaf alone is larger."""
    group: list[str] = []
    size = 0
    for name, fact in facts.items():
        bound = 8 * math.prod(fact["shape"])  # no dtype is wider
        if group and (size + bound > GROUP or item_of(name) != item_of(group[0])):
            yield group
            group, size = [], 0
        group.append(name)
        size += bound
    if group:
        yield group
