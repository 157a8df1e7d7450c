"""The command: bad options stop before anything is built; a saved run is the page's; contenders compute the same."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refgrad._files import write_json
from refgrad.bench import parts
from refgrad.bench.contenders import BASELINE, CONTENDERS, Workload
from refgrad.bench.run import ContenderRow
from refgrad.cli import main
from refgrad.models import gpt2
from refgrad.report import bench as report
from refgrad.report.sections import bench as section
from tests.lanes import fast_if

WORK = Workload(gpt2.Config(n_positions=16, vocab_size=61), 2, 12)
BAD = {
    "rounds": (["--rounds", "0"], "--rounds is 0"),
    "points": (["--points", "1"], "--points [1]: give values of at least 1, for --sweep"),
    "a point": (["--sweep", "batch", "--points", "0"], "--points [0]"),
    "parts and sweep": (["--parts", "--sweep", "batch"], "--parts are measured at one size"),
    "parts and contender": (["--parts", "--contender", "fused"], "--contender fused makes whole steps"),
    "lines": (
        ["--sweep", "batch", "--figure", "a.svg", *[o for n in list(CONTENDERS)[1:8] for o in ("--contender", n)]],
        "--figure has 6 lines at most, but 8 contenders",
    ),
    "folder": (["--json", "no/such/folder/run.json"], "run.json' cannot be written"),
    "figure": (["--figure", "run.pdf"], "--figure: 'run.pdf' must end in .svg"),
    "config": (["--set", "model.n_embd=7"], "n_embd is 7"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_options_stop_before_anything_is_built(what, capsys):
    options, message = BAD[what]
    assert main(["bench", "--quick", *options]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.out == ""


def part_rows():
    row = parts.PartRow("block", BASELINE, 2, 12, 0.5, 1.0, 4_000_000, 2_000_000)
    fused = dataclasses.replace(row, rules="fused", seconds=0.25, ratio=0.5, temporaries=1_000_000, residuals=0)
    return [row, fused]


def test_bytes_stand_beside_autodiffs():
    lines = [line.split() for line in str(report.part_table(part_rows())).splitlines()]
    assert lines[-1] == ["block", "2", "×", "12", "fused", "250.00", "0.500", "1.0", "0.250", "0.0", "0.000"]


@pytest.mark.slow
def test_a_saved_run_of_parts_is_drawn_with_ids_of_its_own(tmp_path):
    machine = {"processor": "a processor", "cores": 2, "versions": {"jax": "0.10.2"}}
    pages = []
    for rounds in (1, 2):
        data = {"machine": machine, "work": WORK.data(), "rounds": rounds, "parts": list(map(vars, part_rows()))}
        write_json(tmp_path / "run.json", data)
        pages.append(section.measured(section.read(tmp_path / "run.json")).data["pictures"][0])
    ids = [page.split('id="')[1].split('"')[0].rsplit("-", 1)[0] for page in pages]
    assert ids[0].startswith("bench-") and ids[0] != ids[1]


@pytest.mark.parametrize("fault", [{}, {"parts": [{"part": "gelu"}]}, {"parts": []}, {"rows": [{"ratio": 1}]}], ids=str)
def test_a_file_that_is_no_run_is_named(fault, tmp_path):
    machine = {"processor": "a processor", "cores": 2, "versions": {"jax": "0.10.2"}}
    (tmp_path / "run.json").write_text(json.dumps({"machine": machine, "work": WORK.data(), **fault}))
    with pytest.raises(ValueError, match=r"--bench .*run\.json is"):
        section.read(tmp_path / "run.json")


def test_contenders_are_drawn(tmp_path):
    row = ContenderRow(
        "autodiff", "autodiff", "float32", 1.0, (0.9, 1.1), 0.5, 128.0, 1e9, 10**6, 1.0, 10**8, 0.1, 0.2, 5, None
    )
    floor = dataclasses.replace(row, name="roofline", ratio=0.4)
    report.draw([row, floor], tmp_path / "run.svg", report.title(WORK))
    assert "time 1.00" in (tmp_path / "run.svg").read_text()


@pytest.mark.parametrize("name", fast_if(lambda name: name in ("gelu", "layer_norm"), parts.PARTS))
def test_a_part_is_one_function_under_every_set_of_rules(name):
    found = []
    for rules in parts.rules_of(name):
        f, shapes = parts.part(name, WORK, rules)
        leaves, tree = jax.tree.flatten(shapes)
        draw = np.random.default_rng(0)
        arrays = [jnp.asarray(draw.standard_normal(leaf.shape), leaf.dtype) / 8 for leaf in leaves]
        found.append(jax.jit(f)(*jax.tree.unflatten(tree, arrays)))
    assert len(found) > 1
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=2e-4, atol=2e-5)


def test_no_such_part_or_not_by_these_rules():
    for name, rules in (("head", "fused"), ("swiglu", "derived")):
        with pytest.raises(ValueError, match=f"part is '{name}' under rules '{rules}'"):
            parts.part(name, WORK, rules)


HERE = [
    pytest.param(name, marks=[pytest.mark.slow, *[pytest.mark.peers] * ("torch" in contender.needs)])
    for name, contender in CONTENDERS.items()
    if contender.platform != "gpu" and name not in ("torch-compile", "torch-compile-bf16")
]


@pytest.mark.parametrize("name", HERE)
def test_every_contender_starts_at_the_same_loss(name):
    with (
        jax.numpy_rank_promotion("allow"),
        jax.numpy_dtype_promotion("standard"),
    ):  # the library's contender is written as its users write
        runner = CONTENDERS[name].make(WORK)
    loss = runner.step()
    if not name.startswith("roofline"):
        want = gpt2.loss(gpt2.init(jax.random.key(0), WORK.config), *WORK.ids(), WORK.config)
        np.testing.assert_allclose(loss, want, rtol=1e-5 if CONTENDERS[name].dtype == "float32" else 2e-2)
        assert runner.step() < loss
