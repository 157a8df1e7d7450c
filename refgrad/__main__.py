"""`python -m refgrad`, and the `refgrad` command: what imports nothing before an interruption has its answer."""

import sys
from _thread import interrupt_main
from typing import Any

INTERRUPTED = 130  # 128 and SIGINT's number, as shells count


def run() -> int:
    """Run the command; returns its exit code, 130 where it is interrupted while it still starts.

    An interruption that Python raises inside a finaliser or a collector's callback, which cannot pass it on, is raised
    again.
    """
    told = sys.unraisablehook

    def again(args: Any) -> None:
        if issubclass(args.exc_type, KeyboardInterrupt):
            interrupt_main()
        else:
            told(args)

    sys.unraisablehook = again
    try:
        from refgrad.cli import main

        return main()
    except KeyboardInterrupt:
        print("refgrad: interrupted", file=sys.stderr)
        return INTERRUPTED
    finally:
        sys.unraisablehook = told


if __name__ == "__main__":
    sys.exit(run())
