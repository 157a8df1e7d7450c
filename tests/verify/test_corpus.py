"""Rules as people write them: `check(sweep=True)` turns the wrong ones red and leaves the right ones alone."""

import contextlib

import jax
import pytest

from refgrad.verify import check
from tests.verify.corpus import RIGHT, WRONG

QUICK = {"order": 1, "properties": ("structure", "accuracy")}  # beside what a sweep does


def swept(specimen, **settings):
    wide = jax.enable_x64(True) if specimen.dtype == "float64" else contextlib.nullcontext()
    with wide:
        return check(specimen.function, *specimen.args, sweep=True, **specimen.settings, **settings)


@pytest.mark.parametrize("specimen", WRONG, ids=lambda s: s.name)
def test_wrong_rules_are_caught(specimen):
    assert not swept(specimen, **QUICK).ok


@pytest.mark.parametrize("specimen", RIGHT, ids=lambda s: s.name)
def test_right_rules_pass(specimen):
    assert swept(specimen, **QUICK).ok, swept(specimen, **QUICK).summary()


def test_there_are_enough():
    rules = {name.rpartition(" (")[0] for name in (s.name for s in WRONG)}
    assert len(rules) >= 40
    assert len({s.name.rpartition(" (")[0] for s in RIGHT}) >= 40
