"""kill -9 at random moments, twenty times in a row, then resumed to the end: bit for bit the undisturbed run."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from refgrad.train import checkpoints, runs
from tests.train.runs import lines, settings

STEPS, EVERY, KILLS = 1000, 10, 20


def command(folder, out, resume):
    values = settings(folder).as_mapping()
    changes = {
        "model": values["model"],
        "data": values["data"],
        "train": {**values["train"], "steps": STEPS, "validate_every": 100, "samples": 0, "spike": 0},
        "checkpoint": {"every": EVERY, "keep": 2},
    }
    sets = [f"{s}.{k}={json.dumps(v)}" for s, keys in changes.items() for k, v in keys.items()]
    options = [word for change in sets for word in ("--set", change)]
    return [sys.executable, "-m", "refgrad", "train", "--out", str(out), *options, *["--resume"] * resume]


def environment(folder):
    """Programs that the first run has compiled are read by those after it."""
    keep = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    return {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"), **keep}


def digests(out):
    """The digest of every leaf of the last checkpoint, and its step."""
    about = checkpoints.read_about(out / runs.CHECKPOINTS / str(STEPS))
    return about["step"], {name: leaf["digest"] for name, leaf in about["leaves"].items()}


@pytest.mark.slow
def test_killed_twenty_times(tmp_path):
    whole, out, chance = tmp_path / "whole", tmp_path / "killed", random.Random(0)
    keep = environment(tmp_path)
    first = subprocess.run(command(tmp_path, whole, False), capture_output=True, text=True, timeout=300, env=keep)
    assert first.returncode == 0, first.stderr
    kills, steps = 0, []
    while kills < KILLS:
        process = subprocess.Popen(
            command(tmp_path, out, (out / runs.RUN).exists()),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        before = checkpoints.complete(out / runs.CHECKPOINTS)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:  # until it trains, or has written once more
            if checkpoints.complete(out / runs.CHECKPOINTS) != before or chance.random() < 0.002:
                break
            time.sleep(0.02)
        time.sleep(chance.random() * 0.3)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        found = checkpoints.complete(out / runs.CHECKPOINTS)
        if before:
            assert found and found[-1] >= before[-1]  # never the last good one
        if found:
            assert lines(out / runs.METRICS)[-1]["step"] - found[-1] <= 3 * EVERY  # those since, one more under way
        steps.append(found[-1] if found else 0)
    assert kills == KILLS and 0 < max(steps) < STEPS, steps
    words = command(tmp_path, out, True)
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=300, env=keep)
    assert "bit for bit as if it had never stopped" in done.stderr
    assert digests(out) == digests(whole)
    assert lines(out / runs.METRICS) == lines(whole / runs.METRICS)
