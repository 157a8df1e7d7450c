"""`python -m refgrad`, and the `refgrad` command: what imports nothing before an interruption has its answer."""

import sys
from signal import SIGINT, pthread_kill
from threading import Timer, main_thread
from typing import Any

INTERRUPTED = 130  # 128 and SIGINT's number, as shells count
AGAIN = 0.05  # seconds until an interruption is raised again


def run() -> int:
    """Run the command; returns its exit code, 130 where it is interrupted while it still starts.

    An interruption that Python raises inside a finaliser or a collector's callback, which cannot pass it on, is raised
    again.
    """
    told, timers = sys.unraisablehook, []

    def again(args: Any) -> None:
        if not issubclass(args.exc_type, KeyboardInterrupt):
            told(args)
            return
        timers.append(Timer(AGAIN, pthread_kill, (main_thread().ident, SIGINT)))  # now, it would be raised in here
        timers[-1].start()

    sys.unraisablehook = again
    try:
        from refgrad.cli import main

        return main()
    except KeyboardInterrupt:
        print("refgrad: interrupted", file=sys.stderr)
        return INTERRUPTED
    finally:
        for timer in timers:
            timer.cancel()
        sys.unraisablehook = told


if __name__ == "__main__":
    sys.exit(run())
