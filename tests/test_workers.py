"""Workers give what one process gives, in order, errors included."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from refgrad._workers import workers


def square(n):
    if n == 13:
        raise ValueError("n is 13")
    return n * n, os.getpid()


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_order_and_errors_are_raised(processes):
    with workers(20, processes=processes) as each:
        twice = [each(square, list(range(first, 13)), "squares") for first in (0, 6)]
        found = [list(results) for results in twice]
        assert [[n for n, _ in results] for results in found] == [[n * n for n in range(first, 13)] for first in (0, 6)]
        assert ({pid for _, pid in found[0]} == {os.getpid()}) is (processes == 1)
        with pytest.raises(ValueError, match="n is 13"):
            list(each(square, [12, 13, 14], "squares"))


def test_few_pieces_start_no_process():
    with workers(7, processes=2) as each:
        assert {pid for _, pid in each(square, [1, 2, 3], "squares")} == {os.getpid()}


def pid(_):
    return os.getpid()


def test_workers_end_with_a_command_that_is_killed(tmp_path):
    script = tmp_path / "main.py"
    script.write_text(
        "import time\n"
        "from refgrad._workers import workers\n"
        "from tests.test_workers import pid\n"
        "if __name__ == '__main__':\n"
        "    with workers(8, processes=2) as each:\n"
        "        print(*set(each(pid, [0] * 8, 'pids')), flush=True)\n"
        "        time.sleep(60)\n"
    )
    root = str(Path(__file__).parents[1])
    where = {"cwd": root, "env": {**os.environ, "PYTHONPATH": root}}
    command = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, **where)
    pids = [int(word) for word in command.stdout.readline().split()]
    assert pids
    command.kill()
    command.wait()
    deadline = time.monotonic() + 30
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"  # nobody waits for an orphan


FORKED = """
import multiprocessing, os
{imported}
from refgrad._workers import forked, workers
from tests.test_workers import pid
with forked(2):
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    {body}
"""
USED = "with workers(8, processes=2) as each: print(*each(pid, [0] * 8, 'pids'))"
needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")


def forking(body, imported=""):
    """Two lines of numbers of processes: those forked, and those that computed."""
    root = str(Path(__file__).parents[1])
    words = [sys.executable, "-W", "always::RuntimeWarning", "-c", FORKED.format(imported=imported, body=body)]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=True, timeout=120)
    assert "fork" not in done.stderr, done.stderr  # JAX warns where its devices have started
    return [set(map(int, line.split())) for line in done.stdout.splitlines()]


@needs_fork
def test_workers_are_forked_before_a_command_starts_jax():
    forked, used = forking(USED, "import refgrad.cli.verify, refgrad.cli.claims, refgrad.cli.report")
    assert used <= forked


@needs_fork
@pytest.mark.parametrize("body", ["pass", "os._exit(0)"])
def test_workers_that_nobody_needs_end(body):
    (forked,) = forking(body)
    deadline = time.monotonic() + 30
    while any(alive(pid) for pid in forked) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert forked
    assert not any(alive(pid) for pid in forked)
