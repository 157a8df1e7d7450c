"""The page's assembly: what failed stands in it, what is data is escaped, what is linked is there."""

import re
import subprocess
import sys

import pytest

from refgrad._extras import install
from refgrad.cli import main
from refgrad.ops import TABLE
from refgrad.report import cells, page
from refgrad.symbols import b, h, s
from refgrad.verify.report import PAGE
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


def test_an_operation_leads_to_its_page_of_the_site(sample, tmp_path_factory):
    """From the page's folder, to where the site's generator writes a page for each operation of the table."""
    html, _ = sample
    links = re.findall(r'href="([^"#]*/operations/([^"]*)\.html)"', html)
    assert {"matmul", "mean_square"} <= {name for _, name in links} <= set(TABLE)
    folder = next(tmp_path_factory.getbasetemp().glob("figures*"))
    for link, name in links:
        assert (folder / link).resolve() == cells.SITE / "operations" / f"{name}.html"
    assert "python -m sphinx docs" in html and "<td>no operation</td>" in html


def test_the_package_alone_has_no_site_to_lead_to(monkeypatch, tmp_path):
    monkeypatch.setattr(cells, "CHECKOUT", tmp_path)
    assert cells.site_from(tmp_path) == "" and cells.derivations("")("gelu") == "<code>gelu</code>"
    assert cells.explained(f"what it means: {PAGE}#fail", "") == f"what it means: {PAGE}#fail"


def test_a_verdict_leads_to_its_page_of_the_site():
    html = cells.explained(f"<b> {PAGE}#fail, #kink", "../site")
    assert html == f'&lt;b&gt; <a href="../site/verdicts.html#fail">{PAGE}#fail</a>, #kink'


def test_a_polynomial_is_set_term_by_term():
    html = cells.polynomial(8 * b * s * h + h**2 - s * h / 2)
    assert html.count("<math>") == 3 and html.count("<wbr>") == 2
    assert "<msup><mi>h</mi><mn>2</mn></msup>" in html
    assert '<mo form="infix">−</mo><mfrac>' in html.replace("<mrow>", "")


def test_code_stands_in_backticks():
    assert cells.coded("<b> `x < y` z") == "&lt;b&gt; <code>x &lt; y</code> z"


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


def test_a_missing_extra_is_named():
    code = "import sys; sys.modules['matplotlib'] = None; from refgrad.cli import main; sys.exit(main(['report']))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 2
    assert ran.stderr.strip().endswith(f"matplotlib is not installed: {install('report')}")
