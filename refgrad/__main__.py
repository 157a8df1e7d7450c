"""`python -m refgrad`, and the `refgrad` command: what imports nothing before an interruption has its answer."""

import os
import sys
from signal import SIGINT, default_int_handler, getsignal, pthread_kill, signal
from threading import Timer, main_thread
from types import FrameType
from typing import Any

from refgrad._exit_codes import INTERRUPTED

AGAIN = 0.05  # seconds until an interruption is raised again


def run() -> int:
    """Run the command; returns its exit code, 130 where it is interrupted.

    An interruption while modules are imported ends the process at once: extensions that are being initialised abort, or
    make another error of it. One that Python raises inside a finaliser or a collector's callback, which cannot pass it
    on, is raised again.
    """
    told, timers = sys.unraisablehook, []
    before = getsignal(SIGINT)

    def again(args: Any) -> None:
        if not issubclass(args.exc_type, KeyboardInterrupt):
            told(args)
            return
        timers.append(Timer(AGAIN, pthread_kill, (main_thread().ident, SIGINT)))  # now, it would be raised in here
        timers[-1].start()

    sys.unraisablehook = again
    if before is default_int_handler:  # else the shell has it ignored
        signal(SIGINT, _interrupt)
    try:
        from refgrad.cli import main

        return main()
    except KeyboardInterrupt:
        print("refgrad: interrupted", file=sys.stderr)
        return INTERRUPTED
    finally:
        for timer in timers:
            timer.cancel()
        if before is default_int_handler:
            signal(SIGINT, before)
        sys.unraisablehook = told


def _interrupt(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os.write(2, b"refgrad: interrupted\n")
            os._exit(INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(run())
