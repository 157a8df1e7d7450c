"""`refgrad cost --against`: two functions, two settings of GPT-2, a saved program; exit codes; bad options."""

import json

import pytest

from refgrad.cli import main

SOURCE = """
import jax.numpy as jnp

def before(x, w):
    return jnp.sum(jnp.tanh(x @ w))

def after(x, w):
    return jnp.sum(jnp.tanh(x @ w) * 2.0)
"""
ARGS = ["--args", "f32[8,16] f32[16,32]"]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


def test_two_functions(capsys, tmp_path, source):
    files = {name: tmp_path / f"out.{name}" for name in ("json", "scope")}
    options = ["--against", f"{source}:after", "--json", str(files["json"]), "--speedscope", str(files["scope"])]
    assert main(["cost", f"{source}:before", *ARGS, *options]) == 1
    out = capsys.readouterr().out
    assert "line changed" in out and "Unexplained: 0." in out and "return jnp.sum(jnp.tanh(x @ w) * 2.0)" in out
    assert max(map(len, out.splitlines())) <= 100
    found = json.loads(files["json"].read_text())
    assert found["exceeded"] == ["flops", "bytes"] and found["by_cause"]["line changed"]["flops"] == 8 * 32
    assert len(json.loads(files["scope"].read_text())["profiles"]) == 6  # flops, transcendentals, bytes of both


@pytest.mark.slow  # matplotlib's import
def test_a_picture(tmp_path, source):
    picture = tmp_path / "changes.svg"
    assert main(["cost", f"{source}:before", *ARGS, "--against", f"{source}:after", "--figure", str(picture)]) == 1
    assert "currentColor" in picture.read_text()


def test_what_is_allowed_is_fine(source):
    options = ["--against", f"{source}:after", "--allow", "flops=4%,bytes=100%"]
    assert main(["cost", f"{source}:before", *ARGS, *options]) == 0


def test_a_saved_program_and_other_arguments(capsys, tmp_path, source):
    saved = str(tmp_path / "saved.json")
    assert main(["cost", f"{source}:before", *ARGS, "--backward", "--save", saved]) == 0
    assert main(["cost", saved, "--against", f"{source}:before", *ARGS, "--backward"]) == 0
    assert main(["cost", f"{source}:before", *ARGS, "--against-args", "f32[4,16] f32[16,32]"]) == 0
    assert "other shapes" in capsys.readouterr().out
    assert main(["cost", f"{source}:before", *ARGS, "--against-stage", "lowered"]) in (0, 1)


@pytest.mark.slow  # traces the model four times
def test_two_settings_of_gpt2(capsys):
    small = ["--set", "model.n_layer=1", "--set", "model.n_embd=8", "--set", "input.sequence=6"]
    assert main(["cost", *small, "--backward", "--against-set", "loss.remat=true"]) == 1
    out = capsys.readouterr().out
    assert "recomputed" in out and "Unexplained: 0." in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["{}:before", *ARGS, "--against", "{}:aftr"], "has no 'aftr': did you mean after?"),
        (["{}:before", *ARGS, "--against", "x.json"], "x.json: no such file"),
        (["{}:before", *ARGS, "--against-stage", "lowerd"], "--against-stage: invalid choice: 'lowerd'"),
        (["{}:before", *ARGS, "--against-set", "model.n_layer=3"], "--against-set is GPT-2's"),
        (["{}:before", *ARGS, "--allow", "flops=1%"], "--allow is of a comparison"),
        (["{}:before", *ARGS, "--against", "{}:after", "--allow", "flop=1"], "'flop' is not a figure"),
        (
            ["{}:before", *ARGS, "--against", "{}:after", "--save", "no/such/file.json"],
            "cannot be written",
        ),
        (["{}:before", *ARGS, "--against", "{}:after", "--csv", "x.csv"], "--csv belongs to the report on one program"),
        (["--against-set", "loss.rules=1"], "loss.rules = 1: known are"),
        (["--against-set", "model.n_layers=3"], "n_layers"),
        (["--against-set", "model.n_layer=1000000000"], "model.n_layer is 1,000,000,000, but a program has"),
        (["--against-set", "loss.rules=fusd"], "fusd"),
    ],
)
def test_bad_options_are_named_before_anything_is_counted(capsys, source, options, message, monkeypatch):
    monkeypatch.setattr("refgrad.cost.program", lambda *args, **kwargs: pytest.fail("counted"))
    assert main(["cost", *(option.format(source) for option in options)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
