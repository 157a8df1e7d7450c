"""A run's metrics: one line of JSON a step, appended; as if it had never stopped when it goes on.

    {"step": 7, "loss": …, "grad_norm": …, "learning_rate": …, "seconds": …, "waited": …}
    {"step": 200, "validation_loss": …}

`step` counts from 1; `loss` and `grad_norm` are from before that step's update, `validation_loss` from after it. Losses
in nats a token; `waited` are the seconds of the step in which it stood still for data.
"""

import fcntl
import json
from pathlib import Path
from typing import Any

from refgrad._files import write_bytes


def read(path: Path) -> list[dict[str, Any]]:
    """The lines, without one that was cut off while it was written. None where there is no file."""
    return [json.loads(line) for line in _whole(path)]


def _whole(path: Path) -> list[bytes]:
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [line for line in lines if line.endswith(b"\n")]


class Metrics:
    """The file, open to append, by one process at a time."""

    def __init__(self, path: Path, step: int) -> None:
        """Go on after `step` steps: lines of later ones are cut off.

        Raises ValueError where another process is writing it.
        """
        kept = [line for line in _whole(path) if json.loads(line)["step"] <= step]
        self._lock = open(path.with_suffix(".lock"), "w")  # noqa: SIM115 (held until `close`)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise ValueError(f"another process trains in {path.parent}: wait for it, or take another --out") from None
        write_bytes(path, b"".join(kept))
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115

    def add(self, step: int, **values: float) -> None:
        """Append a line, which is with the system when this returns."""
        self._file.write(json.dumps({"step": step, **values}).encode() + b"\n")

    def close(self) -> None:
        """Close the file and let others write it."""
        self._file.close()
        self._lock.close()
