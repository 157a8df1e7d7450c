"""The time that a check may take, and signs of life while it does."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

QUIET = 5.0  # seconds before a check says what it is doing
AGAIN = 10.0  # seconds between two such lines


class OutOfTime(Exception):
    """The budget of seconds is spent: what is known so far is reported."""


class TimeBudget:
    """Seconds since it was made, against a budget; `doing` names what is under way."""

    def __init__(self, seconds: float | None = None) -> None:
        self.start, self.seconds, self.doing = time.monotonic(), seconds, ""

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start

    @property
    def left(self) -> float | None:
        """Seconds that are left, a moment at least; None without a budget."""
        return None if self.seconds is None else max(self.seconds - self.elapsed, 1e-3)

    @property
    def over(self) -> bool:
        """True when the budget is spent."""
        return self.seconds is not None and self.elapsed > self.seconds

    def check(self) -> None:
        """Raise OutOfTime when the budget is spent."""
        if self.over:
            raise OutOfTime

    @contextlib.contextmanager
    def reporting(self, title: str) -> Iterator[None]:
        """Say on standard error what is under way, after five seconds and then every ten."""
        done = threading.Event()
        speaker = threading.Thread(target=self._speak, args=(title, done), daemon=True)
        speaker.start()
        try:
            yield
        finally:
            done.set()

    def _speak(self, title: str, done: threading.Event) -> None:
        pause = QUIET
        while not done.wait(pause):
            print(f"checking {title}: {self.doing}, {self.elapsed:.0f} s", file=sys.stderr, flush=True)
            pause = AGAIN
