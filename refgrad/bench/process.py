"""A worker process, spoken to in lines of JSON.

Each contender runs in a process of its own, so that neither compiled code nor a warm allocator is shared, and so that
its peak memory is its own.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from typing import Any


class Process:
    """One worker, started on entering the block and stopped on leaving it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> "Process":
        self._log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "refgrad.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"},  # two share an accelerator's memory
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # of a request that a dead worker has not read
                    pipe.close()
        self._process.wait()
        self._log.close()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one request and wait for its answer.

        Raises ChildProcessError, with the end of the worker's own output, where it answers with an error or dies.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise ChildProcessError(f"{self.name}: its process ended with {self._ended()}\n{self._tail()}")
        answer = json.loads(line)
        if "error" in answer:
            raise ChildProcessError(f"{self.name}: {answer['error']}")
        return answer

    def _ended(self) -> str:
        code = self._process.wait(timeout=10)
        killed = " (killed, as Linux does when memory runs out)" if code == -9 else ""
        return f"exit code {code}{killed}"

    def _tail(self) -> str:
        self._log.seek(0)
        return self._log.read()[-2000:]
