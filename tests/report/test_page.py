"""The page's assembly: what failed stands in it, what is data is escaped, what is linked is there."""

import re

import pytest

from refgrad._extras import install
from refgrad.cli import main
from refgrad.ops import TABLE
from refgrad.report import page
from tests.report import pages


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return pages.sample(tmp_path_factory.mktemp("figures"))


def test_a_section_that_fails_shows_its_error_and_the_others_stand(sample):
    html, sections = sample
    assert [section.ok for section in sections] == [section.name != "broken" for section in sections]
    assert "RuntimeError at pages.py:" in html and "source failed: &lt;b&gt;" in html
    assert "6 of 8 hold, 1 does NOT, 1 not run." in html
    for section in sections:
        assert bool(section.error) == (section.name == "broken") and section.title in html


def test_a_section_that_was_not_run_is_grey_and_not_ok(sample):
    html, _ = sample
    part = html.split('<details id="large"')[1].split("</details>")[0]
    assert '<span class="badge grey">not run</span>' in part and ">ok<" not in part
    assert '<td><span class="badge grey">not run</span></td></tr>' in "".join(html.split("\n"))


def test_every_section_names_its_command(sample):
    html, sections = sample
    for section in sections:
        assert section.command in html and f'id="{section.name}"' in html


def test_nothing_comes_from_elsewhere(sample):
    html, _ = sample
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//|@import|url\(["']?(?:https?:)?//""", html)


def test_every_operation_is_derived_and_linked_to_its_file_and_the_ledger(sample):
    html, _ = sample
    for name in TABLE:
        assert f'id="op-{name}"' in html and f"refgrad verify --op {name}<" in html
    article = html.split('id="op-mean_square"')[1].split("</article>")[0]
    assert "Backpropagation: From Intuition to FLOPs" in article
    assert 'href="#code-mean_square"' in article and 'href="#claim-D0.' in article


def test_an_experiments_answer_is_text_and_not_mathematics(sample):
    html, _ = sample
    assert '<p class="answer">It rises to y = 3.</p>' in html


OPERATIONS = {
    "refgrad/ops/gelu.py": "gelu",
    "refgrad/ops/fused/gelu.py": "fused.gelu",
}


@pytest.mark.parametrize("file", OPERATIONS)
def test_a_file_names_its_operation(file):
    assert page.operation_of(file) == OPERATIONS[file]


BAD = {
    "folder": (["--out", "no/such/folder/page.html"], "is not a folder"),
    "bench": (["--bench", "no_such.json"], "no_such.json"),
    "bench's file": (["--bench", "pyproject.toml"], "--bench pyproject.toml is not JSON"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_options_stop_at_once(what, capsys):
    options, message = BAD[what]
    assert main(["report", *options]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.out == ""


def test_a_missing_extra_is_named(monkeypatch, capsys):
    def missing():
        raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")

    monkeypatch.setattr("refgrad.report.figures.require", missing)
    assert main(["report"]) == 2
    assert f"matplotlib is not installed: {install('report')}" in capsys.readouterr().err
