"""The survey's driver and measurement, on rules and processes made for it: no network, no environment."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import world_rules
from world import environments
from world.environments import surveyed
from world.measure import measure
from world.mutate import EDITS, drawn, score
from world.page import write_page
from world.run import append, lines
from world.use import Use

from tests.lanes import fast_if

X = np.array([0.5, 1.5, -2.0], np.float32)
FACTS = {"package": "fake", "version": "1", "jax": "2"}


def rule(factor=1.0, error=None):
    @jax.custom_vjp
    def cube(x):
        return x**3

    def bwd(x, g):
        if error:
            raise error
        return (3 * factor * x * x * g,)

    cube.defvjp(lambda x: (x**3, x), bwd)
    return cube


def use(f, **more):
    settings = {"order": 1, "draws": 1, "properties": ("accuracy",)}
    return Use("cube", f, (X,), settings, plain=lambda x: x * x * x, **more)


def result(**more):
    return FACTS | {"use": "u", "expected": "right", "outcome": "right", "seconds": 1.0, "found": "", "why": "",
                    "confirmed": "yes"} | more  # fmt: skip


def test_a_right_rule_is_right_and_confirmed_twice():
    by_plain = measure(use(rule()))
    by_differences = measure(Use("cube", rule(), (X,), {"order": 1}))
    assert (by_plain["outcome"], by_plain["reference"], by_plain["confirmed"]) == ("right", "re-expression", "yes")
    assert (by_differences["reference"], by_differences["confirmed"]) == ("differences", "yes")


def test_a_wrong_rule_is_wrong_by_both():
    found = measure(use(rule(1.01)))
    assert found["outcome"] == "wrong" and "accuracy" in found["found"]
    assert found["confirmed"].startswith("no")
    assert measure(Use("cube", rule(1.01), (X,)))["confirmed"].startswith("no")


def test_a_meant_difference_is_no_confirmation():
    meant = Use("cube", rule(2.0), (X,), {"reference": lambda x: 2 * x**3 - jax.lax.stop_gradient(x**3)})
    assert measure(meant)["outcome"] == "meant to differ"


def test_an_error_of_the_function_is_a_crash():
    def refuse(x):
        raise OverflowError("no such thing")

    found = measure(use(refuse))
    assert found["outcome"] == "crashed" and "OverflowError: no such thing" in found["found"]


@pytest.mark.parametrize("nested", fast_if(bool, [False, True]))
def test_mutants_are_caught_and_the_rule_is_restored(nested):
    cube = rule()
    mutated = use(jax.jit(lambda x: jnp.sin(cube(x))) if nested else cube)
    found = score(mutated, drawn([mutated], 3)["cube"])
    assert set(found.values()) == {"caught"} and len(found) == 3
    assert measure(use(cube))["outcome"] == "right"


def test_a_rule_made_in_every_call_is_mutated():
    @jax.custom_gradient
    def cube(x):
        return x**3, lambda g: (3 * x * x * g,)

    made = use(lambda x: cube(x))
    mutants = [m for m in drawn([made], len(EDITS))["cube"] if m[1] == "negated"]
    assert set(score(made, mutants).values()) == {"caught"}


def test_mutants_within_a_stated_tolerance_are_told_apart():
    loose = use(rule())
    loose.settings["tolerance"] = 0.05
    mutants = [m for m in drawn([loose], len(EDITS))["cube"] if m[1] == "scaled"]
    assert set(score(loose, mutants).values()) == {"tolerated"}


def test_a_mutant_of_a_rule_without_effect_is_equivalent():
    cube = rule()
    unused = use(lambda x: 0 * cube(x) + x)
    assert set(score(unused, drawn([unused], 2)["cube"]).values()) == {"equivalent"}


def interpreter(tmp_path: Path, body: str) -> Path:
    """A program that stands in for a package's interpreter: `one(use)` appends a result."""
    script = tmp_path / "interpreter"
    head = f"#!{sys.executable}\nimport json, os, sys, time\npath = sys.argv[4]\n"
    helpers = (
        f"facts = {FACTS!r}\n"
        "put = lambda line: open(path, 'a').write(json.dumps(facts | line) + '\\n')\n"
        "one = lambda name: put({'use': name, 'expected': 'right', 'outcome': 'right', 'found': ''})\n"
        "done = open(path).read() if os.path.exists(path) else ''\n"
    )
    script.write_text(head + helpers + body)
    script.chmod(0o755)
    return script


def test_results_in_the_file_are_kept(tmp_path):
    path = tmp_path / "results.jsonl"
    append(path, result(use="a", outcome="wrong"))
    python = interpreter(tmp_path, "one('b')")
    found = surveyed("fake", python, path, ["a", "b"], (0, 0), 60)
    assert [(r["use"], r["outcome"]) for r in found] == [("a", "wrong"), ("b", "right")]


def test_a_use_that_ends_its_process_is_a_crash_and_the_next_ones_follow(tmp_path):
    body = "one('b') if 'begun' in done else put({'begun': 'a'})"
    found = surveyed("fake", interpreter(tmp_path, body), tmp_path / "results.jsonl", ["a", "b"], (0, 0), 60)
    assert [(r["use"], r["outcome"]) for r in found] == [("a", "crashed"), ("b", "right")]


def test_a_use_without_an_end_is_not_decided(tmp_path, monkeypatch):
    ends = iter([True, False])
    monkeypatch.setattr(environments, "watched", lambda process, path, patience: process.wait() or next(ends))
    body = "one('b') if 'begun' in done else put({'begun': 'a'})"
    found = surveyed("fake", interpreter(tmp_path, body), tmp_path / "results.jsonl", ["a", "b"], (0, 0), 60)
    assert [(r["use"], r["outcome"]) for r in found] == [("a", "not decided"), ("b", "right")]


def test_a_process_without_news_is_ended(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        assert environments.watched(process, tmp_path / "results.jsonl", 0.1)
    assert process.returncode != 0


def test_a_package_that_does_not_run_raises(tmp_path):
    with pytest.raises(RuntimeError, match="no module of that name"):
        surveyed("fake", interpreter(tmp_path, "sys.exit('no module of that name')"), tmp_path / "r", ["a"], (0, 0), 60)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"outcome": "wrong", "found": "x [0]"}, "wrong, expected right. x [0]"),
        ({"expected": "wrong"}, "right, expected wrong"),
        ({"confirmed": "no: 1e-2"}, "does not confirm it"),
        ({"seconds": 31.0}, "31 s"),
        ({"mutants": {"cube: negated": "survived"}}, "survived, cube: negated"),
    ],
)
def test_what_does_not_hold_is_named(changes, words):
    assert not world_rules.failures([result()], [])
    (line,) = world_rules.failures([result(), result(**changes)], [])
    assert line.startswith("fake, u") and words in line


def test_counts(tmp_path):
    found = [
        result(mutants={"m": "caught", "n": "equivalent", "o": "survived"}),
        result(use="v", outcome="wrong", seconds=3.0),
        result(use="w", outcome="wrong", expected="wrong", seconds=5.0, why="it is wrong"),
    ]
    assert world_rules.summary(found) == [
        "3 uses in 1 packages: 1 right, 2 wrong, 0 meant to differ, 0 not decided, 0 crashed.",
        "1 false alarms, 0 misses, 0 crashes; 1 expected failures shown.",
        "1 of the right ones confirmed by an independent reference.",
        "CPU seconds of a use: median 3.0, most 5.0.",
        "Mutants: 1 of 2 caught; besides, 1 equivalent, 0 within the stated tolerance, 0 not run.",
    ]
    assert world_rules.row("fake", found) == ["fake", "1", "2", 3, 1, 2, 0, 0, 0, 1, 3.0, "1 of 2"]
    assert len(world_rules.data(found).rows) == 3
    write_page(tmp_path / "page.md", found, ["An answer."], world_rules.failures(found, ["gone cannot be installed:"]))
    page = (tmp_path / "page.md").read_text()
    assert "| fake | 1 | 2 | 3 | 1 | 2 |" in page and "it is wrong" in page
    assert "- fake, v: wrong, expected right." in page and "- gone cannot be installed:" in page
    write_page(tmp_path / "page.md", found[:1], ["An answer."])
    assert page != (whole := (tmp_path / "page.md").read_text()) and "Everything holds." in whole


def test_stored_results_are_shown_and_nothing_is_run(tmp_path):
    settings = world_rules.Settings(["optax", "flax"], str(tmp_path), 0, 0, 60, again=False, stored=True, page="")
    (tmp_path / "optax").mkdir()
    append(tmp_path / "optax" / "results.jsonl", result(package="optax"))
    shown = world_rules.run(settings)
    assert shown.data.rows[0][0] == "optax" and shown.failures[0] == "flax: not surveyed"
    assert shown.failures[1].startswith("optax, no result of ") and "ctc_loss" in shown.failures[1]


def test_every_line_is_whole(tmp_path):
    path = tmp_path / "results.jsonl"
    append(path, result(use="ε"))
    assert json.loads(path.read_text()) == lines(path)[0]
