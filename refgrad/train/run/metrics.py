"""A run's metrics: one line of JSON per step, appended; a resumed run leaves the file of one that never stopped.

    {"step": 7, "loss": …, "grad_norm": …, "learning_rate": …, "seconds": …, "waited": …}
    {"step": 200, "validation_loss": …}

`step` counts from 1. `loss` and `grad_norm` are from before that step's update, `validation_loss` from after it. Losses
are in nats per token; `waited` is the part of `seconds` in which the step waited for data.
"""

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from refgrad._files import write_bytes
from refgrad.train.run.watch import Stopped


def read(path: Path) -> list[dict[str, Any]]:
    """Return the lines, without a last one that was cut off while it was written.

    Raises ValueError, which names file and line, for a damaged one.
    """
    return [_parsed(path, n, line) for n, line in enumerate(_whole(path), 1)]


def _parsed(path: Path, n: int, line: bytes) -> dict[str, Any]:
    try:
        values = json.loads(line)
        if type(values["step"]) is int and all(isinstance(value, int | float) for value in values.values()):
            return values
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        pass
    raise ValueError(
        f"{path}, line {n} is damaged: {line[:40]!r} is not a line of metrics: put the file back from a copy, or "
        "remove it, and the run goes on without the lines before"
    )


def _whole(path: Path) -> list[bytes]:
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [line for line in lines if line.endswith(b"\n")]


class Metrics:
    """The file, open to append in one process; the other processes of the run read it."""

    def __init__(self, path: Path, step: int, writes: bool = True) -> None:
        """Go on after `step` steps, without the lines of later ones.

        Args:
            path: The file.
            step: The last step whose lines stay.
            writes: Write the file; otherwise `add` does nothing.

        Raises:
            ValueError: Another process writes the file, or a line is damaged.
        """
        self._open = contextlib.ExitStack()
        if writes:
            self._open.enter_context(_alone(path))
        before = read(path)
        kept = b"".join(line for line, values in zip(_whole(path), before, strict=True) if values["step"] <= step)
        self.lines: list[dict[str, Any]] = [values for values in before if values["step"] <= step]
        """The lines of the steps so far."""
        self._hash = hashlib.sha256(kept)
        if writes:
            write_bytes(path, kept)
        self._file = self._open.enter_context(open(path, "ab", buffering=0)) if writes else None  # noqa: SIM115

    @property
    def digest(self) -> str:
        """The SHA-256 of the lines so far."""
        return self._hash.hexdigest()

    def add(self, step: int, **values: float) -> None:
        """Append a line and pass it to the system. Raise `Stopped` if it cannot be written."""
        if self._file is None:
            return
        line = json.dumps({"step": step, **values}).encode() + b"\n"
        self._hash.update(line)
        try:
            self._file.write(line)
        except OSError as error:
            raise Stopped(
                f"step {step:,}: {self._file.name} cannot be written ({error.strerror}): fix this, then go on with "
                "--resume"
            ) from error

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *_: Any) -> None:
        self._open.close()


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock of the file's writer; the system releases it when the process ends."""
    with open(path.with_suffix(".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another process trains in {path.parent}: wait for it, or take another --out") from None
        yield
