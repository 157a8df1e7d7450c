"""`refgrad cost --mesh`: the tables, the file, the exit code, what it refuses, and the devices that it makes itself."""

import json
import os
import subprocess
import sys

import pytest

from refgrad.cli import main
from refgrad.train.mesh import collectives

SMALL = ["--set", "model.n_layer=1", "--set", "model.n_embd=8", "--set", "input.sequence=6"]


def test_bytes_by_term_and_by_collective(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    path = tmp_path / "found.json"
    assert main(["cost", "--mesh", "data=2,model=2", *SMALL, "--json", str(path)]) == 0
    out = capsys.readouterr().out
    for words in ("c_attn, rows ⇄ heads", "12*h**2*item/(N_f*N_m)", "sent by each device", "Unexplained: 0."):
        assert words in out
    found = json.loads(path.read_text())
    assert found["ok"] and found["mesh"] == {"data": 2, "model": 2}
    total = {side: sum(one["payload"] * one["times"] for one in found[side]) for side in ("derived", "compiled")}
    assert total["derived"] == total["compiled"] > 0


def test_a_term_missing_fails(capsys, monkeypatch):
    terms = collectives.terms
    monkeypatch.setattr(collectives, "terms", lambda *a: terms(*a)[1:])
    assert main(["cost", "--mesh", "fsdp=2", *SMALL]) == 1
    assert "Every FLOP" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["data=4"], "the batch is 2, which mesh.data = 4 does not divide"),
        (["data=1"], "a mesh of one device moves nothing"),
        (["tensor=2"], "tensor is not an axis of a mesh"),
        (["data"], "not of the form data=2,model=2"),
        (["data=2", "--csv", "x.csv"], "leave --csv out"),
        (["data=2", "--args", "f32[2]"], "leave --args out"),
    ],
)
def test_bad_options_are_named(capsys, options, message):
    assert main(["cost", "--mesh", *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_makes_its_own_devices():
    env = {key: value for key, value in os.environ.items() if key not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    command = [sys.executable, "-m", "refgrad", "cost", "--mesh", "fsdp=8", *SMALL, "--set", "input.batch=8"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "Unexplained: 0." in done.stdout, done.stderr
