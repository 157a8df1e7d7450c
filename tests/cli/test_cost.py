"""`refgrad cost`: GPT-2 and a user's function, its tables, files and exit code, and what it says to bad options."""

import csv
import json
from pathlib import Path

import pytest

from refgrad.cli import main
from refgrad.models import gpt2_costs

CONFIGS = Path(__file__).parent.parent.parent / "configs"
SMALL = ["--set", "model.n_layer=2", "--set", "model.n_embd=8", "--set", "input.sequence=6"]
SOURCE = """
import jax, jax.numpy as jnp

def mlp(x, w, n, mean):
    def body(x, _):
        with jax.named_scope("up"):
            h = jnp.tanh(x @ w)
        with jax.named_scope("down"):
            return h @ w.T + x * 1.0, None
    with jax.named_scope("layers"):
        x, _ = jax.lax.scan(body, x, None, length=n)
    return jnp.mean(x) if mean else jnp.sum(x)

def ids(i):
    return i * 2 + 1

def until(x):
    return jax.lax.while_loop(lambda x: jnp.sum(x) < 3.0, lambda x: x * 2.0, x)
"""


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


def read(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_the_tiny_model(capsys, tmp_path):
    files = tmp_path / "found.json", tmp_path / "found.csv"
    assert main(["cost", *SMALL, "--json", str(files[0]), "--csv", str(files[1])]) == 0
    out = capsys.readouterr().out
    for words in (
        "Unexplained: 0. Every FLOP and byte is accounted for.",
        "first instruction at which they part: none",
        "exact backward, FLOPs",
        "cross-entropy, lost from D2.22's last line",
        "one block's products, r = s/h",
        "Kaplan 6N",
        "in twice its time at full rate",
        "XLA temporaries",
    ):
        assert words in out
    assert "UNEXPLAINED" not in out
    assert max(map(len, out.splitlines())) <= 100
    found = json.loads(files[0].read_text())
    assert found["ok"] and found["unexplained"] == 0
    assert [use["unexplained"] for use in found["operations"]] == [0] * 18
    assert {way["way"] for way in found["blocks"]} == {"rules", "autodiff", "remat"}
    rows = read(files[1])
    for name, total in ((p["pass"], p["total"]) for p in found["passes"]):
        of_pass = [row for row in rows if row["pass"] == name]
        assert sum(int(row["flops"]) for row in of_pass) == total["flops"]
        assert sum(int(row["xla_flops"]) for row in of_pass) == total["flops"]
        assert sum(int(row["read"]) + int(row["written"]) for row in of_pass) == total["bytes"]


@pytest.mark.slow
def test_a_flop_too_many_fails(capsys, monkeypatch):
    exact = gpt2_costs.backward(True)
    more = exact._replace(flops=exact.flops + 1)
    monkeypatch.setattr(gpt2_costs, "backward", lambda tied=True, rules="derived": more)
    assert main(["cost", *SMALL]) == 1
    out = capsys.readouterr().out
    assert "UNEXPLAINED" in out and "Every FLOP" not in out


@pytest.mark.slow
def test_a_byte_too_many_fails(capsys, monkeypatch):
    wrong = {**gpt2_costs.BLOCK_RESIDUALS, "rules": gpt2_costs.BLOCK_RESIDUALS["rules"] + 1}
    monkeypatch.setattr("refgrad.report.memory.BLOCK_RESIDUALS", wrong)
    assert main(["cost", *SMALL]) == 1
    assert "Unexplained: 1." in capsys.readouterr().out


@pytest.mark.slow
def test_124m(capsys):
    assert main(["cost", "--config", str(CONFIGS / "gpt2_124m.toml")]) == 0
    out = capsys.readouterr().out
    assert "products in the traced program: 874,944,921,600" in out
    assert "input: 1 × 1024 ids" in out
    assert "Unexplained: 0." in out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["355m", "774m", "1558m"])
def test_larger_sizes(capsys, name):
    assert main(["cost", "--config", str(CONFIGS / f"gpt2_{name}.toml")]) == 0
    assert "Unexplained: 0." in capsys.readouterr().out


@pytest.mark.slow
def test_an_untied_head(capsys):
    assert main(["cost", *SMALL, "--set", "model.tie_word_embeddings=false"]) == 0
    assert "tied weights' fan-in" not in capsys.readouterr().out


def test_a_users_function(capsys, tmp_path, source, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    files = tmp_path / "found.json", tmp_path / "found.csv"
    given = ["--args", "f32[8,16] w:f32[16,32] 5 True", "--json", str(files[0]), "--csv", str(files[1])]
    assert main(["cost", f"{source}:mlp", *given]) == 0
    out = capsys.readouterr().out
    assert "first instruction at which they part: layers/down/mul" in out  # x · 1 is folded
    assert "folded: mul f32[8,16]: x·1" in out
    assert "trap: loop counted once: 5 trips" in out
    assert f"{source}:7" in out
    rows = {(row["pass"], row["scope"]): row for row in read(files[1])}
    product = 2 * 8 * 16 * 32 * 5
    assert int(rows["forward", "layers/up"]["matmul"]) == product
    assert int(rows["backward", "layers/up"]["matmul"]) == 2 * product
    assert int(rows["forward", "layers/up"]["transcendental"]) == 8 * 32 * 5
    down = rows["forward", "layers/down"]
    assert int(down["flops"]) - int(down["xla_flops"]) == 8 * 16 * 5
    assert json.loads(files[0].read_text())["ok"]


def test_keywords_and_a_gradient_by_some(capsys, tmp_path, source):
    file = tmp_path / "found.csv"
    given = ["--args", "f32[8,16] w:f32[16,32] 5", "--kwargs", "mean=True", "--argnums", "0", "--csv", str(file)]
    assert main(["cost", f"{source}:mlp", *given]) == 0
    rows = {(row["pass"], row["scope"]): row for row in read(file)}
    assert int(rows["backward", "layers/up"]["matmul"]) == 2 * 8 * 16 * 32 * 5
    assert main(["cost", f"{source}:mlp", *given[:4], "--argnums", "2"]) == 1
    assert "No backward pass: TypeError: no gradient" in capsys.readouterr().out


def test_integers_have_no_backward_pass(capsys, source):
    assert main(["cost", f"{source}:ids", "--args", "i32[7]"]) == 0
    assert "No backward pass: no argument is floating-point or complex." in capsys.readouterr().out


def test_a_missing_gradient_is_said_and_fails(capsys, source):
    assert main(["cost", f"{source}:until", "--args", "f32[7]"]) == 1
    out = capsys.readouterr().out
    assert "No backward pass: ValueError: Reverse-mode differentiation does not work for lax.while_loop" in out
    assert "trip count unknown, ONE trip is counted" in " ".join(out.split())


def test_64_bits(capsys, source):
    assert main(["cost", f"{source}:mlp", "--args", "f64[2,3] f64[3,4] 1 False"]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--args", "f32[3]"], "--args are a function's"),
        (["{}:mlp", "--config", "x.toml"], "--config and --set are GPT-2's"),
        (["--kwargs", "n=3"], "--kwargs are a function's"),
        (["{}:mlp", "--args", "f32[3]", "--argnums", "2"], "argnums holds 2, but there are 1 positional arguments"),
        (["{}:mlp", "--args", "f32[3]", "--kwargs", "n:3"], "--kwargs: 'n:3' must be name=value"),
        (["{}:mpl"], "has no 'mpl': did you mean mlp?"),
        (["{}:mlp", "--args", "f32[3"], "is not closed"),
        (["{}:mlp", "--args", "f32[3]"], "missing 3 required positional arguments"),
        (["--set", "input.sequence=100"], "input.sequence is 100, but model.n_positions = 64"),
    ],
)
def test_bad_options_are_named(capsys, source, options, message):
    assert main(["cost", *(option.format(source) for option in options)]) == 2
    assert message in capsys.readouterr().err
