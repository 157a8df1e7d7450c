"""README's examples run, as a reader would run them, and what it names is there."""

import re
from pathlib import Path

import jax
import pytest

from refgrad.claims import DOCUMENTS
from refgrad.verify import report

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
LINES = 180


@pytest.mark.parametrize("example", EXAMPLES, ids=[str(n) for n in range(len(EXAMPLES))])
def test_example_runs(example):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # a reader's settings; optax's too
        exec(compile(example, "README.md", "exec"), {})


def test_there_are_examples():
    assert len(EXAMPLES) >= 3


def test_it_is_short():
    assert len(README.splitlines()) <= LINES


def test_every_link_leads_to_a_file():
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", README)
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_it_cites_the_documents():
    assert [str(document) for document in DOCUMENTS.values() if str(document) not in README] == []


def test_every_verdict_of_a_report_has_an_anchor():
    names = ("OK", "FAIL", "WRONG", "PARTIAL", "NOTHING", "KINK", "JUMP", "END", "NOT_FINITE", "NOT_DECIDED", "RIGHT")
    verdicts = {getattr(report, name) for name in (*names, "LESS", "COMPILER", "UNAVAILABLE")}
    anchors = set(re.findall(r"^## (.+)$", (ROOT / "docs" / "verdicts.md").read_text(), re.MULTILINE))
    assert verdicts - anchors == set()
