"""Workers give what one process gives, in order, errors included."""

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from refgrad._workers import importing, workers


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


def test_workers_may_begin_to_import_before_they_are_needed():
    with importing("refgrad._workers"):
        early = {child.pid for child in multiprocessing.active_children()}
        with workers(8, processes=2) as each:
            found = set(each(pid, [0] * 8, "pids"))
    assert found <= early
    assert os.getpid() not in early


def test_workers_that_nobody_needs_end():
    with importing("refgrad._workers"):
        early = [child.pid for child in multiprocessing.active_children()]
    deadline = time.monotonic() + 30
    while any(alive(pid) for pid in early) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert early
    assert not any(alive(pid) for pid in early)
