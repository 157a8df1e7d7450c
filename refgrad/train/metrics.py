"""A run's metrics: one line of JSON a step, appended; as if it had never stopped when it goes on.

    {"step": 7, "loss": …, "grad_norm": …, "learning_rate": …, "seconds": …, "waited": …}
    {"step": 200, "validation_loss": …}

`step` counts from 1; `loss` and `grad_norm` are from before that step's update, `validation_loss` from after it. Losses
in nats a token; `waited` are the seconds of the step in which it stood still for data.
"""

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from refgrad._files import write_bytes
from refgrad.train.watch import Stopped


def read(path: Path) -> list[dict[str, Any]]:
    """The lines, without one that was cut off while it was written."""
    return [json.loads(line) for line in _whole(path)]


def _whole(path: Path) -> list[bytes]:
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [line for line in lines if line.endswith(b"\n")]


class Metrics:
    """The file, open to append, by one process at a time; others of the same run read it."""

    def __init__(self, path: Path, step: int, writes: bool = True) -> None:
        """Go on after `step` steps: lines of later ones are cut off. Where it does not write, `add` does nothing.

        Raises ValueError where another process is writing it.
        """
        self._open = contextlib.ExitStack()
        if writes:
            self._open.enter_context(_alone(path))
        kept = [line for line in _whole(path) if json.loads(line)["step"] <= step]
        self.lines: list[dict[str, Any]] = [json.loads(line) for line in kept]
        """Those of the steps before."""
        if writes:
            write_bytes(path, b"".join(kept))
        self._file = self._open.enter_context(open(path, "ab", buffering=0)) if writes else None  # noqa: SIM115

    def add(self, step: int, **values: float) -> None:
        """Append a line, which is with the system when this returns. Raises `Stopped` where it cannot be written."""
        if self._file is None:
            return
        try:
            self._file.write(json.dumps({"step": step, **values}).encode() + b"\n")
        except OSError as error:
            raise Stopped(
                f"step {step:,}: {self._file.name} cannot be written ({error.strerror}): see to that, then go on with "
                "--resume"
            ) from error

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *_: Any) -> None:
        self._open.close()


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """While no other process writes there. The lock goes with the process, however it ends."""
    with open(path.with_suffix(".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another process trains in {path.parent}: wait for it, or take another --out") from None
        yield
