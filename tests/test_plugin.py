"""`pytest --refgrad` on small suites: verdicts, options, markers, workers."""

import importlib.metadata
import json
import sys
import textwrap
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import jax
import pytest

import refgrad.verify  # noqa: F401  (pytester forgets what is first imported inside a run)

pytest_plugins = ["pytester"]

RULES = """
import jax
import jax.numpy as jnp

@jax.custom_vjp
def right(x):
    return jnp.sin(x)

right.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (ct * jnp.cos(x),))

@jax.custom_jvp
def wrong(x):
    return jnp.sin(x)

wrong.defjvp(lambda primals, tangents: (jnp.sin(*primals), 1.1 * tangents[0] * jnp.cos(*primals)))

@jax.custom_vjp
def rounded(x):
    return jnp.round(x)

rounded.defvjp(lambda x: (jnp.round(x), None), lambda _, ct: (ct,))
"""
HEAD = """
import jax
import jax.numpy as jnp
import pytest
from rules import right, rounded, wrong
from refgrad.verify import intents

pytestmark = pytest.mark.refgrad("*", order=1, properties=["accuracy"])
X = jnp.array([0.3, 0.7])
"""


def plugin_options():
    """Load the plugin by name where the installation does not."""
    installed = any(e.value == "refgrad.pytest_plugin" for e in importlib.metadata.entry_points(group="pytest11"))
    return () if installed else ("-p", "refgrad.pytest_plugin")


@pytest.fixture
def suite(pytester):
    """Run pytest in this process over a module of tests that call the rules."""
    pytester.makepyfile(rules=RULES)

    def run(tests, *options, subprocess=False, workers=0):
        pytester.makepyfile(test_suite=HEAD + tests)
        run = pytester.runpytest_subprocess if subprocess else pytester.runpytest_inprocess
        return run(*plugin_options(), "-p", "no:cacheprovider", "-n", str(workers), *options)

    return run


RIGHT = "def test_right():\n    jax.jit(jax.grad(lambda x: right(x).sum()))(X)\n"
WRONG = "def test_wrong():\n    assert wrong(X).shape == (2,)\n"
ROUNDED = "def test_rounded():\n    rounded(X)\n"


def test_the_entry_point():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"refgrad": "refgrad.pytest_plugin"}


def test_right_rules_leave_the_suite_green(suite):
    result = suite(RIGHT, "--refgrad")
    result.assert_outcomes(passed=1)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["1 rule at 1 signature: 1 ok", "right *rules.py:4*"])


def test_a_wrong_rule_turns_it_red(suite, tmp_path):
    result = suite(RIGHT + WRONG, "--refgrad", f"--junitxml={tmp_path / 'j.xml'}", f"--refgrad-json={tmp_path / 'j'}")
    result.assert_outcomes(passed=2, failed=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["FAILED refgrad::rules.py:*::wrong?f32?2?? - *", "*1 failed, 2 passed*"])
    cases = {case.get("name"): case for case in ElementTree.parse(tmp_path / "j.xml").iter("testcase")}
    assert cases["wrong[f32[2]]"].find("failure") is not None
    assert not list(cases["right[f32[2]]"])
    data = json.loads((tmp_path / "j").read_text())
    assert not data["ok"]
    assert {v["rule"]: v["status"] for v in data["verdicts"]} == {"right": "ok", "wrong": "wrong"}
    section = result.stdout.str().partition("= refgrad =")[2]
    texts = [verdict["text"] for verdict in data["verdicts"]]
    assert max(len(line) for text in (section, *texts) for line in text.splitlines()) <= 100


def test_without_the_option_nothing_is_recorded(suite):
    result = suite(WRONG)
    result.assert_outcomes(passed=1)
    assert result.ret == 0 and "1 signature" not in result.stdout.str()


def test_without_the_option_nothing_is_imported(pytester):
    pytester.makepyfile(
        """
        import sys

        def test_modules():
            ours = {name for name in sys.modules if name.partition(".")[0] == "refgrad"}
            assert ours <= {"refgrad", "refgrad.pytest_plugin"} and "jax" not in sys.modules
        """
    )
    pytester.runpytest_subprocess(*plugin_options(), "-p", "no:xdist", "-p", "no:cacheprovider").assert_outcomes(
        passed=1
    )


def test_an_intent_and_an_exclusion(suite):
    marks = """
        @pytest.mark.refgrad("rounded", intent=intents.straight_through)
        def test_rounded():
            rounded(X)

        @pytest.mark.refgrad("*/rules.py:wr*", exclude="issue 12")
        def test_wrong():
            wrong(X)
    """
    result = suite(textwrap.dedent(marks), "--refgrad")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["2 rules at 2 signatures: 1 ok, 1 excluded", "excluded: wrong(*: issue 12"])


def test_what_differs_on_purpose_is_red_without_it(suite):
    assert suite(ROUNDED, "--refgrad").ret == 1


@pytest.mark.parametrize("pattern", ["right", "r*t", "*/rules.py:right"])
def test_only_some_rules(suite, pattern):
    result = suite(RIGHT + WRONG, "--refgrad", f"--refgrad-only={pattern}")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["1 rule at 1 signature: 1 ok"])


def test_what_the_budget_leaves_over_is_not_an_error(suite):
    result = suite(WRONG, "--refgrad", "--refgrad-seconds=1e-9")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["1 rule at 1 signature: 1 *"])
    assert "1 ok" not in result.stdout.str()


def test_a_suite_without_rules(suite):
    result = suite("def test_plain():\n    jax.nn.relu(X)\n", "--refgrad")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["no rule was called"])


def test_failing_tests_stay_failing(suite):
    result = suite(RIGHT + "def test_fails():\n    assert not right(X).any()\n", "--refgrad")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["1 rule at 1 signature: 1 ok"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--refgrad", "--refgrad-seconds=0"], "--refgrad-seconds is 0, but must be above 0"),
        (["--refgrad", "--refgrad-seconds=nan"], "--refgrad-seconds is nan, but must be above 0"),
        (["--refgrad", "--refgrad-json=no/such/folder/file"], "*no/such/folder/file cannot be written"),
        (["--refgrad", "--refgrad-json=."], "*cannot be written"),
        (["--refgrad-only=x"], "--refgrad-only does nothing without --refgrad"),
    ],
)
def test_wrong_options_are_named_before_the_tests_run(suite, options, message):
    result = suite(RIGHT, *options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {message}"])


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ("exclude='no pattern'", "*the marker is refgrad(pattern*"),
        ("'right'", "*the marker is refgrad(pattern*"),
        ("'right', tolerence=1e-3", "*refgrad.verify.check has no setting 'tolerence'*"),
    ],
)
def test_wrong_markers_are_named_before_the_tests_run(suite, mark, message):
    result = suite(f"@pytest.mark.refgrad({mark})\n{RIGHT}", "--refgrad")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])


@pytest.mark.slow
def test_a_wrong_marker_is_named_by_the_controller(suite):
    result = suite(f"@pytest.mark.refgrad('right', tolerence=1)\n{RIGHT}", "--refgrad", subprocess=True, workers=2)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *has no setting 'tolerence'*"])


@pytest.mark.slow
def test_workers_check_each_rule_once(suite, tmp_path):
    """Every worker sees every rule; the calls of all workers are added up."""
    pytest.importorskip("xdist")
    tests = "".join(RIGHT.replace("test_right", f"test_right_{i}") + WRONG.replace("(", f"_{i}(", 1) for i in range(4))
    path = tmp_path / "j"
    result = suite(tests, "--refgrad", f"--refgrad-json={path}", "--dist=each", subprocess=True, workers=2)
    result.assert_outcomes(passed=16, failed=1)
    assert result.ret == 1
    verdicts = {v["rule"]: v for v in json.loads(path.read_text())["verdicts"]}
    assert {rule: (v["status"], v["calls"]) for rule, v in verdicts.items()} == {
        "right": ("ok", 8),
        "wrong": ("wrong", 8),
    }


def test_this_process_is_left_as_it_was(suite):
    before = jax.custom_vjp.__call__
    suite(RIGHT, "--refgrad")
    assert jax.custom_vjp.__call__ is before and "rules" not in sys.modules
