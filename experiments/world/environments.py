"""A virtual environment for each package, and its uses run there by a process of its own."""

import os
import subprocess
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from world.packages import PACKAGES
from world.run import NEVER_DONE, append, complete, lines

ROOT = Path(__file__).parents[2]
POLL = 0.2


def python_of(package: str, envs: Path) -> Path:
    """Return the interpreter of a package's environment, made first where there is none.

    Raises RuntimeError with the end of what pip wrote where it fails.
    """
    folder = envs / package
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    complete = folder / "installed"
    if not complete.exists():
        venv.create(folder, with_pip=True, clear=True)
        words = [python, "-m", "pip", "install", "--quiet", *PACKAGES[package], "-e", ROOT]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{package} cannot be installed:\n{done.stderr[-2000:]}")
        complete.touch()
    return python


def surveyed(
    package: str,
    python: Path | str,
    path: Path,
    uses: list[str],
    arguments: tuple[int, int],
    patience: float,
    shown: Callable[[str], None] = lambda use: None,
) -> list[dict[str, Any]]:
    """Return the results of all uses of a package: those in the file, and the rest by processes of their own.

    A process is ended after `patience` seconds without news, and the use under way is then "not decided"; the next
    process goes on after it.
    """
    while pending := [use for use in uses if use not in finished(path, arguments[0])]:
        shown(f"{package}: {pending[0]}")
        words = [str(python), "-m", "world.run", package, str(path), *map(str, arguments)]
        before = path.stat().st_size if path.exists() else 0
        with subprocess.Popen(words, cwd=ROOT / "experiments", stderr=subprocess.PIPE, env=environment()) as process:
            ended = watched(process, path, patience)
            error = process.stderr.read().decode() if process.stderr else ""
        if (path.stat().st_size if path.exists() else 0) == before:
            raise RuntimeError(f"{package} does not run:\n{error[-2000:]}")
        last = lines(path)[-1]
        if ended and last["found"] == NEVER_DONE:
            append(path, last | {"outcome": "not decided", "found": f"no answer within {patience:.0f} s"})
    return [line for line in lines(path) if line["use"] in uses]


def finished(path: Path, mutants: int) -> set[str]:
    """Return the uses whose results lie in a file."""
    return {line["use"] for line in lines(path) if complete(line, mutants)}


def environment() -> dict[str, str]:
    """Return the variables of a process: this checkout first, on the CPU."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}


def watched(process: subprocess.Popen, path: Path, patience: float) -> bool:
    """Wait for a process; end it and return True where its file does not grow for `patience` seconds."""
    size, since = -1, time.monotonic()
    while process.poll() is None:
        now = path.stat().st_size if path.exists() else 0
        if now != size:
            size, since = now, time.monotonic()
        if time.monotonic() - since > patience:
            process.kill()
            return True
        time.sleep(POLL)
    return False


def names(package: str, python: Path | str) -> list[str]:
    """Return the names of the uses of a package, as its own environment imports them.

    Raises RuntimeError where it does not import.
    """
    code = f"import world.uses.{package} as uses; print(*[use.name for use in uses.USES], sep='\\n')"
    words = [str(python), "-c", code]
    done = subprocess.run(words, cwd=ROOT / "experiments", capture_output=True, text=True, env=environment())
    if done.returncode:
        raise RuntimeError(f"{package} does not import:\n{done.stderr[-2000:]}")
    return done.stdout.splitlines()
