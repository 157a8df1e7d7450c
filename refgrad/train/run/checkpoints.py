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
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from refgrad._text import is_integer
from refgrad.models.inputs import named_leaves
from refgrad.train.optimiser import State
from refgrad.train.run.damage import damaged
from refgrad.train.run.digest import digests
from refgrad.train.run.restore import CheckpointError, Restored, complete, newest
from refgrad.train.run.storage import handler, items_of, ocp, reason_of, seal


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, keep: int = 2, asynchronous: bool = True) -> None:
        """Keep the newest `keep` in a folder, written in the background if `asynchronous`, else while `save` waits."""
        self.folder, self._keep, self._asynchronous = folder.absolute(), keep, asynchronous
        self._saving: dict[str, Any] | None = None
        self._restored: int | None = None
        options = ocp.options.AsyncOptions(post_finalization_callback=self._read_back)
        self._writer = ocp.AsyncCheckpointer(handler(), async_options=options)

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
        arguments = {item: ocp.args.StandardSave(some) for item, some in items_of(leaves).items()}
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
        bad = next(damaged(path, self._saving["leaves"]), None)
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
                f"the checkpoint of step {step} could not be written to {self.folder}: {reason_of(error)}; {last}"
            ) from error
