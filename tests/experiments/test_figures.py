"""The house's figures: text alternatives, ids and colours that suit a page, the same bytes each time."""

import re
import xml.etree.ElementTree as ElementTree

import matplotlib
import pytest

from refgrad._files import write_csv, write_text
from refgrad.report import figures

SVG = "{http://www.w3.org/2000/svg}"


def drawn(path, title="A rise", alt="It rises from 1 to 2 & stays < 3.", label="loss (nats)", lines=6) -> str:
    with figures.draw(path, title, alt) as axes:
        for n in range(lines):
            axes.plot([1, 2], [n, n + 1], label=f"series {n}", **figures.series(n))
        axes.set(xlabel="time (s)", ylabel=label)
        axes.legend()
    return path.read_text()


def test_text_alternative_stands_inside(tmp_path):
    root = ElementTree.fromstring(drawn(tmp_path / "rise.svg"))
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "rise-title rise-desc"
    assert (root[0].tag, root[0].text) == (f"{SVG}title", "A rise")
    assert (root[1].tag, root[1].text) == (f"{SVG}desc", "It rises from 1 to 2 & stays < 3.")


def test_suits_a_page(tmp_path):
    text = drawn(tmp_path / "rise.svg")
    assert figures.INK not in text and "currentColor" in text
    assert "#000000" not in text and "#ffffff" not in text
    assert "<style" not in text and "<metadata" not in text and "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids)) and all(one.startswith("rise-") for one in ids)
    assert set(re.findall(r'href="#([^"]*)"', text) + re.findall(r"url\(#([^)]*)\)", text)) <= set(ids)


def test_same_bytes_whatever_the_machine_says(tmp_path):
    first = drawn(tmp_path / "rise.svg")
    with matplotlib.rc_context({"font.size": 20, "svg.fonttype": "none"}):
        assert drawn(tmp_path / "rise.svg") == first
        assert matplotlib.rcParams["font.size"] == 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alt": " "}, "text alternative"),
        ({"title": ""}, "title"),
        ({"label": ""}, "name both axes"),
        ({"lines": 7}, "series 6"),
    ],
)
def test_faults_leave_no_file(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        drawn(tmp_path / "rise.svg", **changes)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("label", "note", "message"),
    [
        ("how far the loss went since the very first of all the steps taken (nats)", 0, "beyond the figure's"),
        ("loss (nats)", 1.52, "'one' and 'other' overlap"),
    ],
)
def test_letters_stay_inside_and_apart(tmp_path, label, note, message):
    def draw(label, note):
        with figures.draw(tmp_path / "rise.svg", "a", "b") as axes:
            axes.plot([1, 2], [0, 1])
            axes.annotate("one", (1.5, 0.5))
            axes.annotate("other", (note or 1.2, 0.5))
            axes.set(xlabel="time (s)", ylabel=label)

    with pytest.raises(ValueError, match=message):
        draw(label, note)
    assert not list(tmp_path.iterdir())
    draw("loss (nats)", 1.2)


def test_another_suffix(tmp_path):
    with pytest.raises(ValueError, match=r"\.svg"), figures.draw(tmp_path / "rise.pdf", "a", "b"):
        pass
    with figures.draw(tmp_path / "rise.png", "a", "b") as axes:
        axes.set(xlabel="x", ylabel="y")
    assert (tmp_path / "rise.png").read_bytes().startswith(b"\x89PNG")


def _luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("color", figures.COLORS)
def test_contrast_as_documented(color):
    assert 1.05 / (_luminance(color) + 0.05) >= 2.2
    assert (_luminance(color) + 0.05) / (_luminance("#121212") + 0.05) >= 3.6


def test_files_stay_whole(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_text(path, "whole")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "half")
    assert path.read_text() == "whole"
    assert [one.name for one in tmp_path.iterdir()] == ["a.txt"]


def test_csv_rows_fit_their_header(tmp_path):
    with pytest.raises(ValueError, match="1 cells"):
        write_csv(tmp_path / "a.csv", ["x", "y"], [[1]])
    assert not list(tmp_path.iterdir())
