"""Checkpoints: written whole or not at all, checked leaf by leaf, written and read by any number of processes.

    folder/STEP/params, opt_state   the leaves by name, in orbax's format
    folder/STEP/about               step, position, machine, run, digest of the metrics, digest of every leaf, and a
                                    digest of all these

Orbax writes into a temporary folder while training goes on, and renames it at the end. Before that rename, the files
are read back and compared with the digests of the arrays themselves (`digest.py`). Older checkpoints are deleted after
it. So a process killed at any moment leaves the last good one, and a folder with a step's name is always whole.

Orbax does not notice a flipped bit, and reports a truncated file in the words of its storage. So every leaf is checked
again when it is read, and a checkpoint with a damaged leaf is passed over with a message.
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
"""Bytes that are read back at once."""
CONCURRENT_GB = 1
"""Encoded or decoded arrays that orbax may hold at once."""
ABOUT = "metadata"
Leaves = dict[str, Any]


class CheckpointError(Exception):
    """A checkpoint that cannot be written, or that is damaged."""


class Restored(NamedTuple):
    """The contents of a checkpoint."""

    step: int
    leaves: Leaves
    about: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, keep: int = 2, asynchronous: bool = True) -> None:
        """Keep the newest `keep` in a folder, written in the background if `asynchronous`, else while `save` waits."""
        self.folder, self._keep, self._asynchronous = folder.absolute(), keep, asynchronous
        self._saving: dict[str, Any] | None = None
        self._restored: int | None = None
        options = ocp.options.AsyncOptions(post_finalization_callback=self._read_back)
        self._writer = ocp.AsyncCheckpointer(_handler(), async_options=options)

    def steps(self) -> list[int]:
        """Return the steps that have a complete checkpoint, in order."""
        return complete(self.folder)

    def save(self, step: int, state: State, about: Mapping[str, Any]) -> None:
        """Write the state after `step` steps, and metadata.

        The state may be donated as soon as this returns: arrays that are not written yet are kept alive. Damaged
        checkpoints that `restore` has passed over are deleted first, since they are newer than this one's past.

        Args:
            step: The number of steps so far.
            state: The state.
            about: The metadata, which JSON must be able to hold.

        Raises:
            CheckpointError: This checkpoint, or the one before in the background, cannot be written.
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
        """Raise CheckpointError if writing in the background has failed; do not wait."""
        with self._explained():
            self._writer.check_for_errors()

    def finish(self) -> None:
        """Wait until all is written, then delete all but the newest `keep`. Raises as `poll` does."""
        with self._explained():
            self._writer.wait_until_finished()
        self._saving = None
        if jax.process_index() == 0:
            for step in self.steps()[: -self._keep]:
                self._delete(step)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        """Wait for the writer. Raises as `finish` does, unless another exception is on its way."""
        with contextlib.suppress(CheckpointError) if kind else contextlib.nullcontext():
            self.finish()

    def restore(self, like: State, say: Callable[[str], None]) -> tuple[State, Restored] | None:
        """Return the newest good state with its checkpoint, or None if nothing has been written.

        Args:
            like: A state whose leaves have the shapes and shardings to restore; they may be abstract.
            say: A function that is told of each damaged checkpoint that is passed over.

        Raises:
            CheckpointError: All checkpoints are damaged.
            ValueError: A checkpoint holds a state of another form than `like`.
        """
        checkpoint = newest(self.folder, named_leaves(like), say)
        if checkpoint is None:
            return None
        self._restored = checkpoint.step
        leaves = [checkpoint.leaves[name] for name in named_leaves(like)]
        return jax.tree.unflatten(jax.tree.structure(like), leaves), checkpoint

    def _delete(self, step: int) -> None:
        """Rename before deleting, so that a crash never leaves a partial checkpoint under a step's name."""
        gone = self.folder / f"{step}.deleted"
        os.rename(self.folder / str(step), gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _read_back(self) -> None:
        """Compare the files with the arrays' digests, in the background of the process that renames."""
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
        """Turn failures of writing into a CheckpointError that says which checkpoint is good and what to do."""
        try:
            yield
        except Exception as error:
            step = self._saving["step"] if self._saving else None
            self._saving = None
            for left in self._unfinished() if self.folder.is_dir() and jax.process_index() == 0 else ():
                shutil.rmtree(left, ignore_errors=True)
            good = self.steps()
            last = f"the last good one is that of step {good[-1]}" if good else "it is the first"
            raise CheckpointError(
                f"the checkpoint of step {step} could not be written to {self.folder}: {_reason(error)}; {last}"
            ) from error


def complete(folder: Path) -> list[int]:
    """Return the steps whose checkpoint in the folder is complete, in order.

    Raises ValueError if the path exists but is not a folder.
    """
    if not folder.is_dir():
        if folder.exists() or folder.is_symlink():
            raise ValueError(f"{folder} is not a folder, but must hold the checkpoints: move it away, or put them back")
        return []
    return sorted(int(path.name) for path in folder.iterdir() if is_integer(path.name))


def newest(folder: Path, like: Leaves, say: Callable[[str], None]) -> Restored | None:
    """Return the newest checkpoint that is whole, with the leaves named in `like`, which may be some of them.

    Raises as `Checkpoints.restore` does.
    """
    steps = complete(folder)
    for step in reversed(steps):
        try:
            return read(folder / str(step), like)
        except CheckpointError as error:
            say(f"{error}: the one before is taken" if step != steps[0] else f"{error}: it is the oldest")
    if steps:
        raise CheckpointError(f"no checkpoint in {folder} is whole: begin again in another folder")
    return None


def read(path: Path, like: Leaves) -> Restored:
    """Return one checkpoint's leaves, sharded as those of `like` (arrays, or their shapes with shardings).

    Raises:
        CheckpointError: A part is damaged; the message names it.
        ValueError: A leaf of `like` is missing or has another shape.
    """
    path = path.absolute()
    about = read_about(path)
    for name, leaf in like.items():
        written = about["leaves"].get(name)
        if written is None or tuple(written["shape"]) != leaf.shape:
            other = f"{name} of shape {tuple(written['shape'])}" if written else f"no {name}"
            raise ValueError(f"{path} has {other}, but this run's is of shape {leaf.shape}: its settings differ")
    facts = {name: about["leaves"][name] for name in like}
    with _quietly():
        items, reason = _read_items(path, like, facts)
    if reason:
        raise CheckpointError(f"{path} is damaged: {reason}")
    leaves = {name: items[_item(name)][name] for name in like}
    for name, digest in digests(leaves).items():
        if digest != facts[name]["digest"]:
            raise CheckpointError(f"{path} is damaged: {name} is not what was written")
    return Restored(about["step"], leaves, about)


def _read_items(path: Path, like: Leaves, facts: Mapping[str, Any]) -> tuple[Any, str | None]:
    """Return the items as orbax reads them and None, or None and the reason of the failure."""
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
    """Return the leaves by the item that they are written into, the first part of their names."""
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
    """Return the metadata of a checkpoint. Raise CheckpointError if it is damaged."""
    try:
        about = json.loads((path / "about" / ABOUT).read_bytes())
        sealed = about.pop("sha256")
    except (OSError, ValueError, RecursionError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged: about cannot be read ({_reason(error)})") from error
    if sealed != seal(about):
        raise CheckpointError(f"{path} is damaged: about is not what was written")
    return about


def newest_about(folder: Path) -> dict[str, Any] | None:
    """Return the newest metadata that is whole, or None."""
    for step in reversed(complete(folder)):
        with contextlib.suppress(CheckpointError):
            return read_about(folder / str(step))
    return None


def seal(contents: Mapping[str, Any]) -> str:
    """Return the SHA-256 of plain data, independent of the order of keys."""
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


def _damaged(path: Path, facts: Mapping[str, Any]) -> Iterator[str]:
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
                leaves = reader.restore(path / _item(names[0]), args=arguments)
            except Exception:
                if len(names) == 1:
                    yield names[0]
                else:
                    for name in names:
                        yield from _damaged(path, {name: facts[name]})
                continue
            checked = digests({name: jax.device_put(leaf, host) for name, leaf in leaves.items()})
            yield from (name for name in names if checked[name] != facts[name]["digest"])


def _damage_for_all(path: Path, facts: Mapping[str, Any]) -> str | None:
    """Return the first damaged leaf, which process 0 finds and tells all, so that all agree."""
    names = list(facts)
    bad = next(_damaged(path, facts), None) if jax.process_index() == 0 else None
    index = int(multihost_utils.broadcast_one_to_all(np.int32(names.index(bad) if bad else -1)))
    return names[index] if index >= 0 else None


def _groups(facts: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield the names in groups of one item each, of at most `GROUP` bytes unless one leaf alone is larger."""
    group: list[str] = []
    size = 0
    for name, fact in facts.items():
        bound = 8 * math.prod(fact["shape"])  # no dtype is wider
        if group and (size + bound > GROUP or _item(name) != _item(group[0])):
            yield group
            group, size = [], 0
        group.append(name)
        size += bound
    if group:
        yield group


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silence reads that fail after the first one has: their event loop is closed by then."""
    told = sys.unraisablehook
    sys.unraisablehook = lambda args: told(args) if issubclass(args.exc_type, KeyboardInterrupt) else None
    try:
        yield
    finally:
        gc.collect()  # those reads
        sys.unraisablehook = told


def _reason(error: BaseException) -> str:
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
