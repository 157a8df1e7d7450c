"""Every experiment, found by its file: one command leaves data, figure and card; planted faults turn its answer."""

import csv
import dataclasses
import importlib
import json
import os
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[2]
NEEDS = {"tpu": ("libtpu",)}  # packages of extras that not every machine can have
NAMES = sorted(path.stem for path in (ROOT / "experiments").glob("[!_]*.py"))


def test_there_are_experiments():
    assert len(NAMES) >= 7


@pytest.mark.parametrize("name", NAMES)
def test_docstring_asks_and_config_answers(name):
    about = (importlib.import_module(name).__doc__ or "").strip()
    assert about.split("\n\n")[0].rstrip().endswith("?")
    assert f"python experiments/{name}.py" in about
    settings = tomllib.loads((ROOT / f"configs/experiments/{name}.toml").read_text())
    assert set(settings.pop("quick")) <= set(settings)
    assert set(settings) == {field.name for field in dataclasses.fields(importlib.import_module(name).Settings)}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_one_command_leaves_everything(name, tmp_path):
    for package in NEEDS.get(name, ()):
        pytest.importorskip(package)
    if name == "planted_faults" and sys.version_info < (3, 12):
        pytest.skip("sys.monitoring is new in Python 3.12")
    command = [sys.executable, f"experiments/{name}.py", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "COLUMNS": "80"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    card = json.loads((tmp_path / f"{name}.json").read_text())
    assert card["holds"] and card["answer"] and card["question"].endswith("?")
    assert all(line in done.stdout for line in card["answer"])
    with (tmp_path / card["data"]).open() as file:
        header, *rows = csv.reader(file)
    assert rows and all(len(row) == len(header) for row in rows)
    assert card["figures"]
    for figure in card["figures"]:
        root = ElementTree.parse(tmp_path / figure["file"]).getroot()
        assert root[1].tag.endswith("desc") and root[1].text == figure["alt"].strip()
        assert "currentColor" in (tmp_path / figure["file"]).read_text()


def quick(name: str, **changes):
    """(the experiment's module, its settings for a quick run with these changes)."""
    from _common import CONFIGS, load

    module = importlib.import_module(name)
    settings = load(module.Settings, CONFIGS / f"{name}.toml", None, [], quick=True)
    return module, dataclasses.replace(settings, **changes)


def test_a_wrong_polynomial_turns_backward_over_forward(monkeypatch):
    module, settings = quick("backward_over_forward", sizes=["tiny"], powers=[0])
    assert not module.run(settings).failures
    right = module.gpt2_costs.forward
    monkeypatch.setattr(module.gpt2_costs, "forward", lambda: right()._replace(flops=right().flops + 1))
    assert "derived" in module.run(settings).failures[0]


def test_a_use_left_out_turns_where_it_goes(monkeypatch):
    module, settings = quick("where_it_goes")
    parts = module.counted(settings)
    assert not module.unlike(settings, parts)
    monkeypatch.setattr(module.gpt2_costs, "LAYER", module.gpt2_costs.LAYER[:-2])
    assert [line.split(":")[0] for line in module.unlike(settings, parts)] == ["linear", "residual"]


def test_a_jacobian_not_transposed_turns_explicit_jacobian(monkeypatch):
    module, settings = quick("explicit_jacobian", sizes=[8, 128], rounds=1)
    assert not module.run(settings).failures
    assert module.run(settings).table.rows[1][3] is None  # 128 does not fit: never made
    right = module.explicit
    monkeypatch.setattr(module, "explicit", lambda w, dy: right(w.T, dy))
    assert "differs from the rule's" in module.run(settings).failures[0]


def test_a_step_too_large_turns_finite_differences():
    module, settings = quick("finite_differences", widths=[2])
    assert not module.run(settings).failures
    assert "the differences are off" in module.run(dataclasses.replace(settings, step=3.0)).failures[0]


def test_derived_bytes_are_those_kept_at_checkpoints():
    module, settings = quick("checkpointing", n_layer=4, groups=[1, 2])
    x = jax.ShapeDtypeStruct((settings.batch, settings.sequence, settings.n_embd), "float32")
    kept = {}
    for k in settings.groups:
        way = module.Way("", k)
        layers = jax.eval_shape(lambda way=way: module.grouped(module.parameters(settings), way))
        kept[k] = module.cost.residuals(module.partial(module.loss, way, settings.config), layers, x).bytes
    measured = {k: module.Measured(bytes_kept, 0, 0, 0, 0.0) for k, bytes_kept in kept.items()}
    block_input = 4 * settings.batch * settings.sequence * settings.n_embd
    assert not module.unlike(settings, measured, block_input)
    assert len(module.unlike(settings, measured, block_input + 1)) == 2


def test_a_wrong_gradient_turns_less_memory(monkeypatch):
    module, settings = quick("less_memory")
    assert module.apart([module.np.ones(3)], [module.np.ones(3)]) == 0
    assert module.apart([0.75 * module.np.ones(3)], [module.np.ones(3)]) == pytest.approx(0.25)
    found = dict.fromkeys(module.WAYS, module.Measured(1, 1, 1, 1, 1.0, 0.0))
    found["smaller batches"] = module.Measured(1, 1, 1, 1, 1.0, 0.25)
    monkeypatch.setattr(module, "measure", lambda _: found)
    assert module.run(settings).failures == ["smaller batches: the gradient's error is 2.5e-01, but may be 1e-05"]


def test_an_unexplained_difference_turns_compare(monkeypatch):
    module, settings = quick("compare")
    monkeypatch.setattr(module, "PAIRS", {name: module.PAIRS[name] for name in ("one line changed",)})
    assert not module.run(settings).failures
    nameless = module.cost.compare(*(side(settings) for side in module.PAIRS["one line changed"])).change
    monkeypatch.setattr(module.cost.Comparison, "unexplained", nameless)
    assert "unexplained" in module.run(settings).failures[0]


def test_a_wrong_rewriting_turns_bf16_products(monkeypatch):
    module, settings = quick("bf16_products", sequence=8, n_embd=8, vocab_size=16)
    monkeypatch.setattr(module, "products", lambda *_: [module.Matmuls("w dw", 1, 1, 6, 8, 4, left_transposed=True)])
    right = module.WAYS["as it stands"]
    monkeypatch.setattr(module, "WAYS", {"as it stands": right})
    assert not module.run(settings).failures
    monkeypatch.setattr(module, "WAYS", {"twice": lambda x, dz: 2 * right(x, dz)})
    assert "w dw, twice: error" in module.run(settings).failures[0]


def test_a_refused_setting_is_shown_and_no_setting_helps_by_chance(monkeypatch):
    module, settings = quick("xla_settings")
    seconds = {"defaults": [1.0, 1.0], "fast": [0.9, 0.94], "uneven": [0.5, 1.01], "refused": []}
    monkeypatch.setattr(module, "XLA_SETTINGS", dict.fromkeys(seconds, ""))
    monkeypatch.setattr(module, "measured", lambda *_: seconds)
    result = module.run(settings)
    assert result.answer[0] == "Every round is faster by 5% with fast for fused-bf16 (0.92 of the time)."
    assert [row[-1] for row in result.table.rows] == [False, False, False, True]


def test_another_device_is_refused_in_one_line(capsys):
    from _common import main

    module = importlib.import_module("on_gpu")
    with pytest.raises(SystemExit):
        main(module.__file__, module.__doc__, module.Settings, module.run, ["--set", "platform=tpu"])
    assert "--device tpu: no tpu here; JAX sees cpu" in capsys.readouterr().err


def test_a_profile_is_read_by_kernel(tmp_path):
    module = importlib.import_module("on_gpu")
    event = {"ph": "X", "pid": 3, "name": "gemm", "dur": 5.0, "args": {"hlo_op": "dot.1"}}
    named = [
        {"name": "process_name", "pid": n, "args": {"name": name}}
        for n, name in ((3, "/device:GPU:0"), (4, "/host:CPU"))
    ]
    trace = json.dumps({"traceEvents": [*named, event, event, {**event, "pid": 4}, {**event, "args": {}}]})
    (tmp_path / "host.trace.json.gz").write_bytes(module.gzip.compress(trace.encode()))
    assert module.by_kernel(tmp_path, "gpu") == pytest.approx({"gemm": 1e-5})
    assert module.by_kernel(tmp_path, "cpu") == pytest.approx({"dot.1": 5e-6})
