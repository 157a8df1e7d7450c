"""Checkpoints: written whole or not at all, checked leaf by leaf, by one process or many, read by any number.

    folder/STEP/params, opt_state   the leaves by name, in orbax's format
    folder/STEP/about               step, position, machine, run, digest of the metrics; a digest of every leaf; a
                                    digest of all that

Orbax writes into a temporary folder while training goes on, and renames it at the end. Before that rename, what was
written is read back and held against the digests that were taken of the arrays themselves (`digest.py`). Older ones are
deleted after it: a process killed at any moment leaves the last good one, and whatever has a step's name is whole.

Orbax does not notice a flipped bit and reports a truncated file in the words of its storage. So every leaf is checked
again when it is read, and a checkpoint with a damaged one is passed over, saying which.
"""

import contextlib
import gc
import hashlib
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from refgrad._extras import install
from refgrad._files import DISK_FULL
from refgrad._text import is_integer
from refgrad.models.inputs import named_leaves
from refgrad.train.optimiser import State
from refgrad.train.run.digest import digests

try:
    import orbax.checkpoint as ocp
except ImportError as error:
    raise ImportError(f"checkpoints need orbax-checkpoint: {install('train')}") from error

GROUP = 2**28
"""Bytes that are read back at a time."""
CONCURRENT_GB = 1
"""What orbax may hold of encoded or decoded arrays at once."""
ABOUT = "metadata"
Leaves = dict[str, Any]


class CheckpointError(Exception):
    """A checkpoint that cannot be written, or one that is not what was written."""


class Restored(NamedTuple):
    """What a checkpoint holds."""

    step: int
    leaves: Leaves
    about: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, keep: int = 2, asynchronous: bool = True) -> None:
        """Those in `folder`, of which the newest `keep` stay; written in the background, or while `save` waits."""
        self.folder, self._keep, self._asynchronous = folder.absolute(), keep, asynchronous
        self._saving: dict[str, Any] | None = None
        self._restored: int | None = None
        options = ocp.options.AsyncOptions(post_finalization_callback=self._read_back)
        self._writer = ocp.AsyncCheckpointer(_handler(), async_options=options)

    def steps(self) -> list[int]:
        """The steps that have a complete checkpoint, in order."""
        return complete(self.folder)

    def save(self, step: int, state: State, about: Mapping[str, Any]) -> None:
        """Write the state after `step` steps, and `about`, which JSON must hold.

        The state may be donated as soon as this returns: what of it is not yet written is kept alive until then.
        Damaged ones that `restore` has passed over are deleted first: they are newer than what counts. Raises
        CheckpointError where this one, or the one before in the background, cannot be written.
        """
        if self._restored is not None and jax.process_index() == 0:
            for later in self.steps():
                if later > self._restored:
                    self._delete(later)
        self._restored = None
        self.finish()
        leaves = named_leaves(state)
        checked = digests(leaves)
        facts = {name: {"digest": checked[name], "shape": leaf.shape} for name, leaf in leaves.items()}
        contents = {**about, "step": step, "leaves": facts}
        self._saving = contents
        arguments = {item: ocp.args.StandardSave(some) for item, some in _items(leaves).items()}
        with self._explained():
            self.folder.mkdir(parents=True, exist_ok=True)
            for left in self._unfinished() if jax.process_index() == 0 else ():
                shutil.rmtree(left, ignore_errors=True)
            sealed = ocp.args.JsonSave({**contents, "sha256": seal(contents)})
            self._writer.save(self.folder / str(step), args=ocp.args.Composite(**arguments, about=sealed))
        if not self._asynchronous:
            self.finish()

    def poll(self) -> None:
        """Raises CheckpointError where writing in the background has failed; does not wait."""
        with self._explained():
            self._writer.check_for_errors()

    def finish(self) -> None:
        """Wait until all is written, then delete what is older than the newest `keep`. Raises as `poll` does."""
        with self._explained():
            self._writer.wait_until_finished()
        self._saving = None
        if jax.process_index() == 0:
            for step in self.steps()[: -self._keep]:
                self._delete(step)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        """Wait for what is being written; raises as `finish` does, unless something else has been raised already."""
        with contextlib.suppress(CheckpointError) if kind else contextlib.nullcontext():
            self.finish()

    def restore(self, like: State, say: Callable[[str], None]) -> tuple[State, Restored] | None:
        """The newest good state, placed as the leaves of `like` are; None where there is no checkpoint at all.

        `say` is told of each damaged one that is passed over. Raises CheckpointError where all are damaged, and
        ValueError where one holds a state of another form than `like`.
        """
        found = newest(self.folder, named_leaves(like), say)
        if found is None:
            return None
        self._restored = found.step
        leaves = [found.leaves[name] for name in named_leaves(like)]
        return jax.tree.unflatten(jax.tree.structure(like), leaves), found

    def _delete(self, step: int) -> None:
        """Whatever happens meanwhile, what has a step's name is whole."""
        gone = self.folder / f"{step}.deleted"
        os.rename(self.folder / str(step), gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _read_back(self) -> None:
        """In the background, of the process that renames: hold what lies on the disk against the arrays' digests."""
        if self._saving is None:
            return
        (path,) = (left for left in self._unfinished() if left.name.startswith(f"{self._saving['step']}."))
        bad = next(_damaged(path, self._saving["leaves"]), None)
        if bad:
            raise CheckpointError(f"{bad} reads back as something else than was written")

    def _unfinished(self) -> list[Path]:
        return [path for path in self.folder.iterdir() if "." in path.name and is_integer(path.name.split(".")[0])]

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """What goes wrong with writing, in words that say what is still good and what to do."""
        try:
            yield
        except Exception as error:
            step = self._saving["step"] if self._saving else None
            self._saving = None
            for left in self._unfinished() if self.folder.is_dir() and jax.process_index() == 0 else ():
                shutil.rmtree(left, ignore_errors=True)
            good = self.steps()
            last = f"the last good one is that of step {good[-1]}" if good else "there is none before it"
            raise CheckpointError(
                f"the checkpoint of step {step} could not be written to {self.folder}: {_reason(error)}; {last}"
            ) from error


def complete(folder: Path) -> list[int]:
    """Return the steps whose checkpoint in the folder is complete, in order.

    Raises ValueError where something else than a folder has that name.
    """
    if not folder.is_dir():
        if folder.exists() or folder.is_symlink():
            raise ValueError(f"{folder} is not a folder, but must hold the checkpoints: move it away, or put them back")
        return []
    return sorted(int(path.name) for path in folder.iterdir() if is_integer(path.name))


def newest(folder: Path, like: Leaves, say: Callable[[str], None]) -> Restored | None:
    """The leaves named as in `like`, which may be fewer than were written, of the newest checkpoint that is whole.

    Raises as `Checkpoints.restore`.
    """
    steps = complete(folder)
    for step in reversed(steps):
        try:
            return read(folder / str(step), like)
        except CheckpointError as error:
            say(f"{error}: the one before is taken" if step != steps[0] else f"{error}: there is none before")
    if steps:
        raise CheckpointError(f"no checkpoint in {folder} is whole: begin again in another folder")
    return None


def read(path: Path, like: Leaves) -> Restored:
    """One checkpoint's leaves, placed as those of `like` (arrays, or their shapes with shardings) are.

    Raises CheckpointError where something of it is damaged, naming the leaf, and ValueError where a leaf of `like` is
    not in it or has another shape there.
    """
    path = path.absolute()
    about = read_about(path)
    for name, leaf in like.items():
        there = about["leaves"].get(name)
        if there is None or tuple(there["shape"]) != leaf.shape:
            found = f"{name} of shape {tuple(there['shape'])}" if there else f"no {name}"
            raise ValueError(f"{path} has {found}, but this run's is of shape {leaf.shape}: its settings are others")
    facts = {name: about["leaves"][name] for name in like}
    with _quietly():
        found, reason = _found(path, like, facts)
    if reason:
        raise CheckpointError(f"{path} is damaged: {reason}")
    leaves = {name: found[name.split(".")[0]][name] for name in like}
    for name, digest in digests(leaves).items():
        if digest != facts[name]["digest"]:
            raise CheckpointError(f"{path} is damaged: {name} is not what was written")
    return Restored(about["step"], leaves, about)


def _found(path: Path, like: Leaves, facts: Mapping[str, Any]) -> tuple[Any, str | None]:
    """The items as orbax reads them, and why they could not be read; None where they could."""
    if jax.process_count() > 1 and (bad := _damage_for_all(path, facts)):
        return None, f"{bad} is not what was written, or cannot be read"
    try:
        arguments = {item: ocp.args.StandardRestore(some) for item, some in _items(like).items()}
        with ocp.Checkpointer(_handler()) as reader:
            return reader.restore(path, args=ocp.args.Composite(**arguments)), None
    except Exception as error:
        bad = list(_damaged(path, facts))
        item = _item(bad[0]) if bad else "a file"
        whole = not bad or sum(_item(name) == item for name in facts) <= len(bad)
        return None, f"{item if whole else bad[0]} cannot be read ({_reason(error)})"


def _items(leaves: Leaves) -> dict[str, Leaves]:
    """The leaves by the item that they are written into: the first part of their names."""
    return {
        item: some for item in State._fields if (some := {n: leaf for n, leaf in leaves.items() if _item(n) == item})
    }


def _item(name: str) -> str:
    return name.split(".")[0]


def _handler() -> ocp.CompositeCheckpointHandler:
    arrays: dict[str, Any] = {
        item: ocp.StandardCheckpointHandler(save_concurrent_gb=CONCURRENT_GB, restore_concurrent_gb=CONCURRENT_GB)
        for item in State._fields
    }
    return ocp.CompositeCheckpointHandler(**arrays, about=ocp.JsonCheckpointHandler(ABOUT))


def read_about(path: Path) -> dict[str, Any]:
    """Return what is written beside the leaves. Raises CheckpointError where it is damaged."""
    try:
        about = json.loads((path / "about" / ABOUT).read_bytes())
        sealed = about.pop("sha256")
    except (OSError, ValueError, RecursionError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged: about cannot be read ({_reason(error)})") from error
    if sealed != seal(about):
        raise CheckpointError(f"{path} is damaged: about is not what was written")
    return about


def newest_about(folder: Path) -> dict[str, Any] | None:
    """Return what is written beside the leaves of the newest checkpoint where that is whole; None without one."""
    for step in reversed(complete(folder)):
        with contextlib.suppress(CheckpointError):
            return read_about(folder / str(step))
    return None


def seal(contents: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what JSON holds, in whatever order."""
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


def _damaged(path: Path, facts: Mapping[str, Any]) -> Iterator[str]:
    """The names of the leaves under `path` that cannot be read or are not what was written; by this process alone."""
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
                found = reader.restore(path / _item(names[0]), args=arguments)
            except Exception:
                if len(names) == 1:
                    yield names[0]
                else:
                    for name in names:
                        yield from _damaged(path, {name: facts[name]})
                continue
            checked = digests({name: jax.device_put(leaf, host) for name, leaf in found.items()})
            yield from (name for name in names if checked[name] != facts[name]["digest"])


def _damage_for_all(path: Path, facts: Mapping[str, Any]) -> str | None:
    """The first damaged leaf, as one process finds it and tells all: each reads its own shards, and all must agree."""
    names = list(facts)
    bad = next(_damaged(path, facts), None) if jax.process_index() == 0 else None
    found = int(multihost_utils.broadcast_one_to_all(np.int32(names.index(bad) if bad else -1)))
    return names[found] if found >= 0 else None


def _groups(facts: Mapping[str, Any]) -> Iterator[list[str]]:
    """The names in groups of one item each and of `GROUP` bytes at most, unless one leaf alone is larger."""
    group: list[str] = []
    size = 0
    for name, fact in facts.items():
        mine = 8 * math.prod(fact["shape"])
        if group and (size + mine > GROUP or _item(name) != _item(group[0])):
            yield group
            group, size = [], 0
        group.append(name)
        size += mine
    if group:
        yield group


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without what Python prints of reads that fail after the first has: their event loop is closed by then."""
    told = sys.unraisablehook
    sys.unraisablehook = lambda args: told(args) if issubclass(args.exc_type, KeyboardInterrupt) else None
    try:
        yield
    finally:
        gc.collect()  # of those reads
        sys.unraisablehook = told


def _reason(error: BaseException) -> str:
    """The first cause in one line; a full disk by its name."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    text = " ".join(str(one) for one in chain)
    for full in map(os.strerror, DISK_FULL):
        if full in text:
            return f"there is no space left for it ({full}): free some, then go on with --resume"
    first = chain[-1]
    return next(iter(str(first).strip().splitlines()), "") if not isinstance(first, KeyError) else f"no {first} in it"
