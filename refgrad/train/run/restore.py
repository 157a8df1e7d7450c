"""Reading checkpoints: the newest one that is whole, checked leaf by leaf."""

import contextlib
import gc
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from refgrad._text import is_integer
from refgrad.train.run.damage import damage_for_all, damaged
from refgrad.train.run.digest import digests
from refgrad.train.run.storage import ABOUT, Leaves, handler, item_of, items_of, ocp, reason_of, seal


class CheckpointError(Exception):
    """A checkpoint that cannot be written, or that is damaged."""


class Restored(NamedTuple):
    """The contents of a checkpoint."""

    step: int
    leaves: Leaves
    about: dict[str, Any]


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
    leaves = {name: items[item_of(name)][name] for name in like}
    for name, digest in digests(leaves).items():
        if digest != facts[name]["digest"]:
            raise CheckpointError(f"{path} is damaged: {name} is not what was written")
    return Restored(about["step"], leaves, about)


def _read_items(path: Path, like: Leaves, facts: Mapping[str, Any]) -> tuple[Any, str | None]:
    """Return the items as orbax reads them and None, or None and the reason of the failure."""
    if jax.process_count() > 1 and (bad := damage_for_all(path, facts)):
        return None, f"{bad} is not what was written, or cannot be read"
    try:
        arguments = {item: ocp.args.StandardRestore(some) for item, some in items_of(like).items()}
        with ocp.Checkpointer(handler()) as reader:
            return reader.restore(path, args=ocp.args.Composite(**arguments)), None
    except Exception as error:
        bad = list(damaged(path, facts))
        item = item_of(bad[0]) if bad else "a file"
        whole = not bad or sum(item_of(name) == item for name in facts) <= len(bad)
        return None, f"{item if whole else bad[0]} cannot be read ({reason_of(error)})"


def read_about(path: Path) -> dict[str, Any]:
    """Return the metadata of a checkpoint. Raise CheckpointError if it is damaged."""
    try:
        about = json.loads((path / "about" / ABOUT).read_bytes())
        sealed = about.pop("sha256")
    except (OSError, ValueError, RecursionError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged: about cannot be read ({reason_of(error)})") from error
    if sealed != seal(about):
        raise CheckpointError(f"{path} is damaged: about is not what was written")
    return about


def newest_about(folder: Path) -> dict[str, Any] | None:
    """Return the newest metadata that is whole, or None."""
    for step in reversed(complete(folder)):
        with contextlib.suppress(CheckpointError):
            return read_about(folder / str(step))
    return None


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
