"""The process of one contender: builds it, steps it when asked, and answers in lines of JSON.

Requests on standard input: `{"build": work}` once, then `{"steps": n}`; or `{"measure": part}` for a part of the model.
Everything that the libraries print goes to standard error, so that standard output holds the answers alone.
"""

import json
import os
import sys
import time
from typing import Any


def serve(answers: Any) -> None:
    """Answer requests until standard input ends."""
    runner = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "build" in request:
                runner, answer = _build(request["build"])
            elif "measure" in request:
                answer = _part(request["measure"])
            else:
                answer = _steps(runner, request["steps"])
        except Exception as error:  # the parent raises it again, with this contender's name
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _build(work: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The contender's runner, and what building it took."""
    kept = _allocator(work)
    from refgrad.bench import contenders

    runner = contenders.build(work)
    return runner, {"kept": kept, **runner.built}


def _part(work: dict[str, Any]) -> dict[str, Any]:
    """The rows of one part of the model."""
    _allocator(work)
    from refgrad.bench import contenders, parts

    return {"rows": parts.measure_here(work["part"], contenders.Workload.of(work), work["rounds"])}


def _allocator(work: dict[str, Any]) -> bool:
    """Let the C library keep freed memory, if asked to: before JAX is imported and starts its threads."""
    from refgrad.train import allocator

    return allocator.keep_temporaries() if work["keep_temporaries"] else False


def _steps(runner: Any, steps: int) -> dict[str, Any]:
    """Seconds, page faults and losses of some steps, and the peak memory so far."""
    from refgrad.train.allocator import page_faults

    seconds, faults, losses = [], [], []
    for _ in range(steps):
        before, start = page_faults(), time.perf_counter()
        losses.append(runner.step())
        seconds.append(time.perf_counter() - start)
        faults.append(page_faults() - before)
    return {"seconds": seconds, "faults": faults, "losses": losses, "peak": runner.peak()}


if __name__ == "__main__":
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(channel)
