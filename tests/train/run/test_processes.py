"""`refgrad train` by two real processes over loopback, on four virtual devices, and on one: the same run.

The processes are started as a user starts them. Their collectives are Gloo's; the port is one that was free.

Bounds. A loss is a mean over b·s tokens, within 4 ε √n of itself (the project's bound, n = b·s·h terms of its longest
sum). A parameter moves by steps · rate · the slope of AdamW's update, 1/epsilon, times the bound on its gradient.
"""

import contextlib
import math
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refgrad.train.mesh.devices import HEARTBEAT
from refgrad.train.run import folder as run_folder
from refgrad.train.run import metrics

STEPS, BATCH, SEQUENCE, WIDTH = 6, 8, 16, 16
RATE, EPSILON = 1e-3, 1e-3
EPS = float(jnp.finfo(jnp.float32).eps)
ALLOWED = 4 * EPS * math.sqrt(BATCH * SEQUENCE * WIDTH)
CONFIG = f"""
[model]
n_layer = 2
n_head = 2
n_embd = {WIDTH}
n_positions = {SEQUENCE}
vocab_size = 256
[data]
text = ["{{text}}"]
[train]
steps = {STEPS}
batch = {BATCH}
sequence = {SEQUENCE}
learning_rate = {RATE}
epsilon = {EPSILON}
warmup = 2
validate_every = 3
validation_batches = 2
samples = 0
[checkpoint]
every = 2
"""


@pytest.fixture
def config(tmp_path):
    """A config file whose text is refgrad's own source."""
    source = Path(run_folder.__file__).parents[2]
    path = tmp_path / "config.toml"
    path.write_text(CONFIG.format(text=source))
    return path


def start(config, out, *more, devices=1):
    """`refgrad train` as a process of its own, its output in a file beside `out`."""
    patient = "--xla_cpu_collective_call_terminate_timeout_seconds=150"  # four devices on a busy machine of two cores
    flags = f"--xla_backend_optimization_level=0 {patient}"
    quick = {"XLA_FLAGS": flags, "JAX_NUM_CPU_DEVICES": str(devices)}
    log = open(f"{out}.{len(more)}.{more[-1] if more else ''}.log", "w+")  # noqa: SIM115 (the process's)
    command = [sys.executable, "-u", "-m", "refgrad", "train", "--config", str(config), "--out", str(out), *more]
    return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **quick}), log


def finish(process, log, within=180):
    """The exit code and what was printed."""
    code = process.wait(within)
    log.seek(0)
    text = log.read()
    log.close()
    return code, text


@contextlib.contextmanager
def two(config, out, *more):
    """Two processes of one run, killed at the end whatever happens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    join = ["--coordinator", f"127.0.0.1:{port}", "--processes", "2", "--process"]
    both = [start(config, out, *more, *join, str(n)) for n in range(2)]
    try:
        yield both
    finally:
        for process, _ in both:
            process.kill()
            process.wait()


def outcome(out):
    """Loss and norm of each step, validation losses, and the last parameters."""
    lines = metrics.read(out / run_folder.METRICS)
    steps = [(line["loss"], line["grad_norm"]) for line in lines if "loss" in line]
    validation = [line["validation_loss"] for line in lines if "validation_loss" in line]
    return np.array(steps), np.array(validation), run_folder.load_model(out).params


def same(got, want):
    steps, validation, params = want
    assert steps.shape == (STEPS, 2)
    np.testing.assert_allclose(got[0], steps, rtol=ALLOWED)
    np.testing.assert_allclose(got[1], validation, rtol=ALLOWED)
    largest = steps[:, 1].max()  # no gradient's entry is larger than the norm of all
    for one, other in zip(jax.tree.leaves(got[2]), jax.tree.leaves(params), strict=True):
        assert float(np.abs(one - other).max()) <= STEPS * RATE / EPSILON * ALLOWED * largest


@pytest.mark.slow
def test_two_processes_and_four_virtual_devices_are_one_device(config, tmp_path):
    alone = start(config, tmp_path / "alone")
    with two(config, tmp_path / "two", "--set", "mesh.data=2") as both:
        for process, log in [alone, *both]:
            code, text = finish(process, log)
            assert code == 0, text
    want = outcome(tmp_path / "alone")
    same(outcome(tmp_path / "two"), want)
    for name, changes in {
        "data": ["mesh.data=4"],
        "fsdp": ["mesh.fsdp=4", "mesh.axes='explicit'", "train.scan=true"],
        "model": ["mesh.data=2", "mesh.model=2"],
    }.items():
        more = [part for change in changes for part in ("--set", change)]
        code, text = finish(*start(config, tmp_path / name, *more, devices=4))
        assert code == 0 and "its share of parameters" in text, text
        same(outcome(tmp_path / name), want)


@pytest.mark.slow
def test_one_process_is_killed_and_the_run_goes_on_alone(config, tmp_path):
    out = tmp_path / "run"
    long = ["--set", "train.steps=100000", "--set", "checkpoint.every=3", "--set", "train.validate_every=100000"]
    with two(config, out, *long, "--set", "mesh.data=2") as ((survivor, log), (victim, _)):
        deadline = time.monotonic() + 180
        while not (out / run_folder.CHECKPOINTS / "6").is_dir():
            assert survivor.poll() is None and time.monotonic() < deadline, Path(log.name).read_text()
            time.sleep(0.05)
        victim.kill()
        killed = time.monotonic()
        code, text = finish(survivor, log, within=HEARTBEAT + 60)
        assert code == 1 and time.monotonic() - killed < HEARTBEAT + 60
    assert "process 0 of 2: another process is gone" in text and "--resume" in text
    reached = run_folder.load_model(out).step
    assert reached >= 6 and reached % 3 == 0
    last = [f"train.steps={reached + 4}", "train.validate_every=2", "mesh.data=1"]
    more = [part for change in last for part in ("--set", change)]
    code, text = finish(*start(config, out, "--resume", *more))
    assert code == 0 and f"resumed at step {reached}, within rounding" in text and "processes: 2 → 1" in text, text
    assert [line["step"] for line in metrics.read(out / run_folder.METRICS) if "loss" in line] == [
        *range(1, reached + 5)
    ]
    assert run_folder.load_model(out).step == reached + 4
