"""Progress of training on standard error: a line that a terminal redraws, elsewhere one every few seconds."""

import time
from collections import deque
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from refgrad import cost
from refgrad._text import prefixed

RECENT = 20
"""Steps over which rates are averaged."""
EVERY = 10
"""Seconds between lines where standard error is not a terminal."""


class Display:
    """Progress from step `done` to step `steps`, a context."""

    def __init__(self, done: int, steps: int, tokens: int, flops: int, peak: float, shown: bool = True) -> None:
        """Display steps of `tokens` and `flops` each, on devices of `peak` FLOP/s in all; be silent if not `shown`."""
        self._first, self._steps, self._tokens, self._flops, self._peak = done, steps, tokens, flops, peak
        self._seconds: deque[float] = deque(maxlen=RECENT)
        self._waits: deque[float] = deque(maxlen=RECENT)
        self._console = Console(stderr=True, quiet=not shown)
        columns = (TextColumn("step"), BarColumn(20), MofNCompleteColumn(), TextColumn("{task.description}"))
        self._bar = Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal)
        self._task = self._bar.add_task("", total=steps, completed=done)
        self._start = self._last = time.perf_counter()

    def step(self, done: int, loss: float, norm: float, seconds: float, waited: float) -> None:
        """Show step `done`, which took `seconds`, and `waited` for data in them."""
        self._seconds.append(seconds)
        self._waits.append(waited)
        text = f"loss {loss:.4f}  ‖g‖ {norm:.3g}  {self.rates()}  {self._left(done)} left"
        self._bar.update(self._task, completed=done, description=text)
        if not self._console.is_terminal and (time.perf_counter() - self._last >= EVERY or done == self._steps):
            self._last = time.perf_counter()
            self.say(f"step {done:,} of {self._steps:,}  {text}")

    def rates(self) -> str:
        """Return tokens and FLOPs per second, utilisation and waiting, over the recent steps."""
        mean = sum(self._seconds) / len(self._seconds)
        used = cost.mfu(mean, self._flops, self._peak)
        waiting = sum(self._waits) / sum(self._seconds)
        return (
            f"{self._tokens / mean:,.0f} tokens/s  {prefixed(self._flops / mean, 'FLOP/s')}  MFU {used:.0%}  "
            f"waiting for data {waiting:.1%}"
        )

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def _left(self, done: int) -> str:
        seconds = (time.perf_counter() - self._start) / (done - self._first) * (self._steps - done)
        minutes, seconds = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"

    def __enter__(self) -> "Display":
        self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()
