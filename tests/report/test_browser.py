"""The page in a real browser, and each fault that a browser would show, planted and seen."""

import pytest

from refgrad.cli import main
from refgrad.report import sections
from tests.report import pages
from tests.report.browser import browser, problems

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def started():
    with browser() as one:
        yield one


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    return pages.sample(tmp_path_factory.mktemp("figures"))[0]


def seen(started, tmp_path, html):
    path = tmp_path / "page.html"
    path.write_text(html)
    return problems(started, path, unfolded=("broken",))


def test_the_page_has_nothing_wrong(started, tmp_path, html):
    assert html.count("<figure>") == 3 and html.count('class="sortable') >= 4
    assert seen(started, tmp_path, html) == []


FAULTS = {
    "an error in the script": ("const valueOf", "absent(); const valueOf", "error: absent is not defined"),
    "a figure without its picture": ("<svg", "<svgg", "figure 0 has no picture"),
    "a figure without size": ("<figure>", '<figure style="display: none">', "figure 0 is not visible"),
    "a figure with nothing drawn": ("<path ", "<pathh ", "figure 0 is empty"),
    "a figure without its text": ('id="first-desc"', 'id="elsewhere"', "figure 0 has no text alternative"),
    "letters too small for a phone": (":focus svg { width: auto; max-width: 46rem; }", ":focus svg {}", "on a phone"),
    "a figure too wide for a phone": (
        ".picture svg { width: 100%; }",
        ".picture svg { min-width: 46rem; }",
        "fit a phone",
    ),
    "a table that is cut": (".scroll { overflow: auto;", ".scroll { overflow: auto; max-height: 9rem;", "is cut"),
    "a section that is not folded": ('class="part">', 'class="part" open>', "numbers is not folded"),
    "an index without a section": ('<a href="#numbers"', '<a href="#ledger"', "the index lacks numbers"),
    "ids that collide": ('id="second-', 'id="first-', "stands twice"),
    "a link to nowhere": ('href="#claim-D0.6"', 'href="#claim-D0.66"', "#claim-D0.66 leads nowhere"),
    "a request": ("<h1>", '<img src="https://refgrad.invalid/x.png"><h1>', "request: https://refgrad.invalid/x.png"),
    "something too wide": ("<h1>", '<h1 style="width: 500px">', "px too wide"),
    "tables that do not sort": ("rows.sort(", "rows.slice().sort(", "is not ascending by column"),
    "numbers sorted as text": ('typeof a === "number" && typeof b === "number"', "false", "is not ascending by column"),
    "filters that do nothing": ("row.hidden = !fits", "row.hidden = false", "does not show just what has"),
    "choices that do nothing": ("choices.every(", "choices.some((c) => true) || choices.every(", "just its rows"),
    "a switch that does nothing": ("root.dataset.theme = ", "root.dataset.other = ", "does not change the colours"),
    "no dark colours": ("  color-scheme: light dark;", "  color-scheme: light;", "looks the same in the dark"),
}


QUICKER = ("tallies", "ledger", "count_time")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_seen(fault, started, tmp_path, html):
    right, wrong, message = FAULTS[fault]
    assert right in html
    found = seen(started, tmp_path, html.replace(right, wrong))
    assert any(message in problem for problem in found), found


def test_the_command_builds_the_page(started, tmp_path, monkeypatch, capsys):
    """End to end with the quicker sections: two processes, an experiment run by its script, the file written whole."""
    quick = [task for task in sections.tasks(quick=True) if task.name in QUICKER]
    monkeypatch.setattr(sections, "tasks", lambda *given: quick)
    path = tmp_path / "report.html"
    assert main(["report", "--quick", "--out", str(path)]) == 0, capsys.readouterr()
    assert "Everything that was run holds." in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [path]
    assert problems(started, path) == []
