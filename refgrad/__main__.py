"""`python -m refgrad`, and the `refgrad` command: what imports nothing before an interruption has its answer."""

import sys
from signal import SIGINT, default_int_handler, getsignal, pthread_kill, signal
from threading import Timer, main_thread
from typing import Any

INTERRUPTED = 130  # 128 and SIGINT's number, as shells count
AGAIN = 0.05  # seconds until an interruption is raised again


def run() -> int:
    """Run the command; returns its exit code, 130 where it is interrupted, also while it still starts.

    An interruption that Python raises inside a finaliser or a collector's callback, which cannot pass it on, is raised
    again. An extension that is interrupted while it is imported raises ImportError: any error after one is its own.
    """
    told, before = sys.unraisablehook, getsignal(SIGINT)
    timers: list[Timer] = []
    sent: list[int] = []

    def note(number: int, frame: Any) -> None:
        sent.append(number)
        raise KeyboardInterrupt

    def again(args: Any) -> None:
        if not issubclass(args.exc_type, KeyboardInterrupt):
            told(args)
            return
        timers.append(Timer(AGAIN, pthread_kill, (main_thread().ident, SIGINT)))  # now, it would be raised in here
        timers[-1].start()

    sys.unraisablehook = again
    if before is default_int_handler:  # else the shell has it ignored
        signal(SIGINT, note)
    try:
        from refgrad.cli import main

        code = main()
        return INTERRUPTED if sent else code
    except BaseException as error:
        if not sent and not isinstance(error, KeyboardInterrupt):
            raise
        print("refgrad: interrupted", file=sys.stderr)
        return INTERRUPTED
    finally:
        for timer in timers:
            timer.cancel()
        if before is default_int_handler:
            signal(SIGINT, before)
        sys.unraisablehook = told


if __name__ == "__main__":
    sys.exit(run())
