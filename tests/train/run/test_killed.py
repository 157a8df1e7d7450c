"""kill -9 and SIGTERM at random moments, alone and with two processes, resumed each time: bit for bit as undisturbed.

`REFGRAD_DISTURBED=40,10 pytest -m slow tests/train/run/test_killed.py` sends 40 kills and 10 SIGTERMs, not a few.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time

import pytest

from refgrad.train.mesh.devices import HEARTBEAT
from refgrad.train.run import folder as run_folder
from refgrad.train.run import restore
from tests.train.runs import lines, settings

KILLS, TERMS = map(int, os.environ.get("REFGRAD_DISTURBED", "2,1").split(","))
EVERY = 10
STEPS = {processes: steps * (KILLS + TERMS) for processes, steps in ((1, 100), (2, 40))}


def command(folder, out, processes, *more):
    values = settings(folder).as_mapping()
    changes = {
        "model": values["model"],
        "data": values["data"],
        "train": {**values["train"], "steps": STEPS[processes], "validate_every": 100, "samples": 0, "spike": 0},
        "checkpoint": {"every": EVERY, "keep": 2},
        "mesh": {"data": processes},
    }
    sets = [f"{s}.{k}={json.dumps(v)}" for s, keys in changes.items() for k, v in keys.items()]
    options = [word for change in sets for word in ("--set", change)]
    return [sys.executable, "-m", "refgrad", "train", "--out", str(out), *options, *more]


def start(folder, out, processes):
    """The run's processes, which say what they have to say in files beside it."""
    resume = ["--resume"] * (out / run_folder.RUN).exists()
    join = [[]]
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        join = [["--coordinator", f"127.0.0.1:{port}", "--processes", str(processes)] for _ in range(processes)]
        join = [[*words, "--process", str(n)] for n, words in enumerate(join)]
    # programs that the first run has compiled are read by those after it
    keep = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": "1", "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"), **keep}
    started = []
    for n, words in enumerate(join):
        with open(folder / f"{n}.log", "w") as log:
            line = command(folder, out, processes, *resume, *words)
            started.append(subprocess.Popen(line, stdout=log, stderr=log, env=env))
    return started


def finish(folder, started, within=900):
    """(the exit codes, what the first process said)."""
    end = time.monotonic() + within
    while time.monotonic() < end and any(process.poll() is None for process in started):
        time.sleep(0.02)
    for process in started:
        process.kill()
    return [process.wait() for process in started], (folder / "0.log").read_text()


def digests(out, step):
    """The digest of every leaf of the checkpoint, and its step."""
    about = restore.read_about(out / run_folder.CHECKPOINTS / str(step))
    return about["step"], {name: leaf["digest"] for name, leaf in about["leaves"].items()}


def disturbed(folder, out, processes, number, chance):
    """Start or resume the run, and send one of its processes a signal while it starts, trains or writes.

    Returns the step of the newest checkpoint.
    """
    before, started = restore.complete(out / run_folder.CHECKPOINTS), start(folder, out, processes)
    wrote, early = False, chance.random() < 0.2
    deadline = time.monotonic() + (8 * chance.random() if early else 120)
    while not wrote and time.monotonic() < deadline:
        assert all(process.poll() is None for process in started), (folder / "0.log").read_text()
        time.sleep(0.02)
        wrote = restore.complete(out / run_folder.CHECKPOINTS) != before
    time.sleep(chance.random() * 0.3)
    victim = chance.choice(started)
    victim.send_signal(number)
    if not wrote:  # the others may wait for it to start, as long as `devices.START`
        victim.wait(60)
    codes, text = finish(folder, started, HEARTBEAT + 60 if wrote else 0)
    found = restore.complete(out / run_folder.CHECKPOINTS)
    if before:
        assert found and found[-1] >= before[-1]  # never the last good one
    reached = lines(out / run_folder.METRICS)[-1]["step"] if (out / run_folder.METRICS).exists() and found else 0
    if number == signal.SIGTERM and wrote:
        assert codes == [128 + number] * processes, text
        assert f"SIGTERM after step {reached:,} of {STEPS[processes]:,}, whose checkpoint is written" in text
        assert found[-1] == reached
    elif found:
        assert reached - found[-1] <= 3 * EVERY  # those since, one more under way
    return found[-1] if found else 0


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_disturbed_it_is_the_same(processes, tmp_path):
    whole, out, chance = tmp_path / "whole", tmp_path / "disturbed", random.Random(processes)
    codes, text = finish(tmp_path, start(tmp_path, whole, processes))
    assert codes == [0] * processes, text
    signals = [signal.SIGKILL] * KILLS + [signal.SIGTERM] * TERMS
    chance.shuffle(signals)
    steps = [disturbed(tmp_path, out, processes, number, chance) for number in signals]
    assert 0 < max(steps) < STEPS[processes], steps
    codes, text = finish(tmp_path, start(tmp_path, out, processes))
    assert codes == [0] * processes, text
    assert "bit for bit as if it had never stopped" in text
    assert digests(out, STEPS[processes]) == digests(whole, STEPS[processes])
    assert lines(out / run_folder.METRICS) == lines(whole / run_folder.METRICS)
