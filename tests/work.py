"""Work counted instead of timed, so that no test depends on the host's speed."""

import contextlib
import sys

import jax

COMPILED = "/jax/core/compile/backend_compile_duration"


def calls(f) -> int:
    """Return the number of calls of Python functions that `f()` makes."""
    made = 0

    def count(_frame, event, _arg):
        nonlocal made
        made += event == "call"

    sys.setprofile(count)
    try:
        f()
    finally:
        sys.setprofile(None)
    return made


@contextlib.contextmanager
def compilations():
    """Yield a list that grows by one entry for each program that XLA compiles."""
    seen: list[float] = []

    def listen(event, duration, **_):
        if event == COMPILED:
            seen.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
