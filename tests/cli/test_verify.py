"""`refgrad verify`: its tables, its JSON, its exit code, and what it says to bad options."""

import json
import tomllib
from pathlib import Path

import pytest

from refgrad.cli import main
from refgrad.models import gpt2
from refgrad.ops import TABLE

CONFIGS = Path(__file__).parent.parent.parent / "configs"


@pytest.mark.slow
def test_the_main_job_holds_and_says_so(capsys, tmp_path):
    """Its quick form; CI's first lane runs the whole."""
    assert main(["verify", "--quick", "--json", str(tmp_path / "found.json")]) == 0
    out = capsys.readouterr().out
    assert "Everything holds." in out
    assert "FAIL" not in out and "UNEXPLAINED" not in out
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["ok"] and {row["operation"] for row in found["operations"]["rows"]} >= {"linear", "layer_norm"}
    assert {row["network"] for row in found["networks"]["rows"]} >= {"the 20 lines", "binary classifier"}
    assert [row["unexplained"] for row in found["totals"]["rows"]] == [0, 0, 0, 0]


@pytest.mark.slow
def test_the_fused_rules_hold(capsys, tmp_path):
    assert main(["verify", "--rules", "fused", "--json", str(tmp_path / "found.json")]) == 0
    assert "FAIL" not in capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())
    assert {row["operation"] for row in found["operations"]["rows"]} == {
        name for name in TABLE if name.startswith("fused.")
    }
    assert found["parameters"]["ok"] and found["model"]["ok"]
    assert [row["unexplained"] for row in found["totals"]["rows"]] == [0, 0, 0, 0]


def test_one_operation_in_one_dtype(capsys, tmp_path):
    config = tmp_path / "small.toml"
    config.write_text("[model]\nn_embd = 12\nn_head = 3\n[input]\nbatch = 3\n")
    target = tmp_path / "found.json"
    options = ["--op", "residual", "--dtype", "bfloat16", "--config", str(config), "--set", "input.sequence=5"]
    assert main(["verify", *options, "--json", str(target)]) == 0
    out = capsys.readouterr().out
    assert "bf16 truth" in out and "f32" not in out and "matmul precision: highest" in out
    (row,) = json.loads(target.read_text())["operations"]["rows"]
    assert row["dims"] | {"b": 3, "s": 5, "h": 12, "n_h": 3} == row["dims"]
    assert set(tmp_path.iterdir()) == {config, target}


BAD = {
    "operation": (["--op", "sofmax"], "--op sofmax: no such operation: did you mean softmax?"),
    "device": (["--device", "abacus"], "--device abacus: no abacus here; JAX sees cpu"),
    "device's index": (["--device", "cpu:9"], "--device cpu:9: cpu devices go from 0 to"),
    "key": (["--set", "model.n_lyer=3"], "n_lyer = 3 is not a key of the model's config: did you mean n_layer?"),
    "section": (["--set", "modle.n_layer=3"], "modle is not a section of a config: did you mean model?"),
    "form": (["--set", "n_layer=3"], "write section.key=value"),
    "value": (["--set", "model.n_layer=three"], "'three' is not a TOML value"),
    "heads": (["--set", "model.n_head=5"], "n_embd is 32, which n_head = 5 does not divide"),
    "sequence": (["--set", "input.sequence=65"], "input.sequence is 65, but model.n_positions = 64"),
    "batch": (["--set", "input.batch=0"], "input.batch is 0, but must be an integer of at least 1"),
    "file": (["--config", "nowhere.toml"], "nowhere.toml"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_options_stop_at_once(what, capsys):
    options, message = BAD[what]
    assert main(["verify", *options]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test_a_file_that_is_no_toml(capsys, tmp_path):
    broken = tmp_path / "broken.toml"
    broken.write_text("[model\n")
    assert main(["verify", "--config", str(broken)]) == 2
    assert "is not TOML" in capsys.readouterr().err


@pytest.mark.parametrize(("file", "size"), [("124m", "124M"), ("355m", "355M"), ("774m", "774M"), ("1558m", "1.5B")])
def test_configs_are_the_sizes(file, size):
    values = tomllib.loads((CONFIGS / f"gpt2_{file}.toml").read_text())["model"]
    assert gpt2.Config.from_mapping(values) == gpt2.SIZES[size]


def test_the_tiny_config_is_the_default():
    assert gpt2.Config.from_mapping(tomllib.loads((CONFIGS / "gpt2_tiny.toml").read_text())["model"]) == gpt2.Config()


def test_proofs_of_operations(capsys, tmp_path):
    target = tmp_path / "proofs.json"
    assert main(["verify", "--prove", "--op", "maximum", "--op", "gelu", "--json", str(target)]) == 0
    out = capsys.readouterr().out
    assert "2 proven." in out and "4 constants identified" in out
    found = json.loads(target.read_text())
    assert found["ok"] and [row["name"] for row in found["rows"]] == ["maximum", "gelu"]


def test_a_refuted_rule_of_ones_own(capsys, tmp_path):
    module = tmp_path / "mine.py"
    module.write_text(
        "import jax\n@jax.custom_vjp\ndef cube(x):\n    return x**3\n"
        "cube.defvjp(lambda x: (x**3, x), lambda x, g: (3 * g * x**2 * (1 + 2**-40),))\n"
    )
    assert main(["verify", f"{module}:cube", "--args", "f32[2]", "--prove"]) == 1
    assert "cotangent of x[0] is" in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--op", "nothing"], ["--dtype", "float32"]])
def test_proofs_refuse_what_has_no_meaning(capsys, options):
    assert main(["verify", "--prove", *options]) == 2
    assert options[0] in capsys.readouterr().err
