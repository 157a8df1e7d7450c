"""SIGTERM and SIGINT end a run after the current step, with a checkpoint, in all of its processes at once.

Each process notes the signals that it receives, and after every step all processes learn of them, so that none goes on
alone. A second signal acts as it would without this.
"""

import signal
import threading
from types import FrameType
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from refgrad._exit_codes import BY_SIGNAL

STOPPING = (signal.SIGTERM, signal.SIGINT)


class Interrupted(Exception):
    """A run that a signal has ended, its state written."""

    def __init__(self, number: int, step: int, steps: int) -> None:
        """Name the signal `number` and the last step, out of `steps`."""
        name = signal.Signals(number).name
        super().__init__(f"{name} after step {step:,} of {steps:,}, whose checkpoint is written: go on by --resume")
        self.exit_code = BY_SIGNAL + number


class Signals:
    """A context that notes signals; only the main thread receives any."""

    def __init__(self) -> None:
        self._number = 0
        self._before: dict[int, Any] = {}

    def asked(self) -> int:
        """Return the signal that this or another process has received, 0 for none. Every process must call it."""
        if jax.process_count() == 1:
            return self._number
        return int(np.max(multihost_utils.process_allgather(np.int32(self._number))))

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            self._before = {int(number): signal.signal(number, self._note) for number in STOPPING}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._number = number
        signal.signal(number, self._before[number])
