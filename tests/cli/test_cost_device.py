"""`refgrad cost --device`: the tables, the file, the exit code, and what it refuses."""

import json

import pytest

from refgrad.cli import main

SMALL = ["--set", "model.n_layer=1", "--set", "model.n_embd=8", "--set", "input.sequence=6"]


def test_a_step_is_predicted(capsys, tmp_path):
    path = tmp_path / "found.json"
    assert main(["cost", "--device", "H100", *SMALL, "--json", str(path)]) == 0
    out = capsys.readouterr().out
    for words in ("MFU", "bound by", "memory of one device", "fits", "NVIDIA, H100"):
        assert words in out
    found = json.loads(path.read_text())
    assert found["device"] == "H100" and found["seconds"] > 0 and found["fits"]
    assert sum(part["matmul"] for part in found["parts"]) == found["matmul_flops"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["H1000"], "device 'H1000' is not in the table"),
        (["H100", "--mesh", "data=4"], "the batch is 2, which mesh.data = 4 does not divide"),
        (["H100", "--csv", "x.csv"], "leave --csv out"),
        (["H100", "--args", "f32[2]"], "give path/to/module.py:function"),
    ],
)
def test_bad_options_are_named(capsys, options, message):
    assert main(["cost", "--device", *options]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
