"""Every bad input is answered by one true line: a seeded few of each kind here, all of them in the slow lane."""

import os
import random
import subprocess
import sys

import pytest

from tests.cli import bad_inputs

FEW = 6  # of each kind in the fast lane
QUICK = [(kind, bad) for kind, bad in bad_inputs.cases() if bad.codes == (2,)]
DRAWN = [
    pair
    for kind in bad_inputs.KINDS
    for pair in random.Random(kind).sample([pair for pair in QUICK if pair[0] == kind], FEW)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("bad")
    bad_inputs.files(path)
    return path


def test_there_are_enough_of_them():
    assert len(bad_inputs.cases()) >= 300


@pytest.mark.parametrize(("kind", "bad"), DRAWN)
def test_a_few(kind, bad, folder):
    assert not bad_inputs.fault(bad, folder)


@pytest.mark.slow
@pytest.mark.parametrize("kind", bad_inputs.KINDS)
def test_all(kind, folder):
    assert [said for bad in bad_inputs.KINDS[kind]() if (said := bad_inputs.fault(bad, folder))] == []


ENVIRONMENTS = {
    "an ASCII locale": ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, 0, "D0.1"),
    "an encoding": ({"PYTHONIOENCODING": "ascii"}, 0, "D0.1"),
    "no columns": ({"COLUMNS": "0"}, 0, "D0.1"),
    "columns that are not a number": ({"COLUMNS": "wide"}, 0, "D0.1"),
    "few columns": ({"COLUMNS": "1"}, 0, "D0.1"),
    "no home": ({"HOME": "/nowhere"}, 0, "D0.1"),
    "no such platform": ({"JAX_PLATFORMS": "abacus"}, 2, "JAX_PLATFORMS"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_environments(name):
    changes, code, says = ENVIRONMENTS[name]
    command = [sys.executable, "-m", "refgrad", "claims", "D0.1"]
    done = subprocess.run(command, env={**os.environ, **changes}, capture_output=True, timeout=300)
    assert done.returncode == code and says.encode() in done.stdout + done.stderr
    assert b"Traceback" not in done.stderr
