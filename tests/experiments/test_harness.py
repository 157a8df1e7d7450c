"""The experiments' harness: settings, files that appear whole or not at all, cards, exit codes, timing."""

import dataclasses
import json
import time

import _common
import pytest
from _common import Figure, Result, Table, interleaved, load, main, shown

DEFAULT = 'sizes = [1, 2]\nrate = 0.5\nname = "a"\ndeep = [[1, 2], [3, 4]]\n[quick]\nsizes = [1]\n'


@dataclasses.dataclass(frozen=True)
class Settings:
    sizes: list[int]
    rate: float
    name: str
    deep: list[list[int]]

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ValueError(f"rate is {self.rate}, but must be above 0")


@pytest.fixture
def default(tmp_path):
    path = tmp_path / "probe.toml"
    path.write_text(DEFAULT)
    return path


@pytest.fixture
def run_probe(tmp_path, default, monkeypatch):
    """Runs an experiment called probe with the command line's words; returns its exit code."""
    monkeypatch.setattr(_common, "CONFIGS", tmp_path)

    def run(result: Result, *words: str) -> int:
        arguments = ["--out", str(tmp_path / "out"), *words]
        return main("experiments/probe.py", "What is it?\n\nAn explanation.", Settings, lambda _: result, arguments)

    return run


def line(axes) -> None:
    axes.plot([1, 2], [3, 4])
    axes.set(xlabel="time (s)", ylabel="loss (nats)")


def result(**changes) -> Result:
    good = Result(
        ["It is 3."], Table(["n", "x (s)"], [[1, 0.12345678], [2000, None]]), [Figure("A line", "It rises.", line)]
    )
    return dataclasses.replace(good, **changes)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ([], {}),
        (["sizes=[7]"], {"sizes": [7]}),
        (["rate=2"], {"rate": 2.0}),
        (["name=b c"], {"name": "b c"}),
        (['name="b"'], {"name": "b"}),
        (["deep=[[5]]"], {"deep": [[5]]}),
    ],
)
def test_settings_change(default, changes, found):
    known = {"sizes": [1, 2], "rate": 0.5, "name": "a", "deep": [[1, 2], [3, 4]]}
    assert dataclasses.asdict(load(Settings, default, None, changes, quick=False)) == known | found


def test_a_file_then_set_then_nothing_else(default, tmp_path):
    own = tmp_path / "own.toml"
    own.write_text("rate = 3.0\nsizes = [9]\n[quick]\nrate = 4.0\n")
    assert load(Settings, default, str(own), [], quick=False).rate == 3.0
    quick = load(Settings, default, str(own), ["sizes=[5]"], quick=True)
    assert (quick.rate, quick.sizes) == (4.0, [5])
    assert load(Settings, default, None, [], quick=True).sizes == [1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "size=[1]"], "size = [1] is not a setting: did you mean sizes?"),
        (["--set", "zzz=1"], "known are sizes, rate, name, deep"),
        (["--set", "sizes"], "write key=value"),
        (["--set", "sizes=3"], "sizes = 3 is of type int, but must be list"),
        (["--set", "sizes=[]"], "give at least one"),
        (["--set", "sizes=[1.5]"], "sizes[0] = 1.5 is of type float, but must be int"),
        (["--set", "sizes=[true]"], "is of type bool"),
        (["--set", "rate=abc"], "'abc' is not a TOML value"),
        (["--set", "rate=-1"], "rate is -1.0, but must be above 0"),
        (["--config", "nowhere.toml"], "nowhere.toml"),
    ],
)
def test_bad_settings_are_named_and_nothing_is_written(run_probe, tmp_path, capsys, words, message):
    with pytest.raises(SystemExit) as stopped:
        run_probe(result(), *words)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_card_data_and_figure(run_probe, tmp_path, capsys):
    assert run_probe(result(claims=["D1.2"]), "--quick", "--set", "rate=2") == 0
    printed = capsys.readouterr().out
    assert "What is it?" in printed and "It is 3." in printed and "2,000" in printed
    card = json.loads((tmp_path / "out/probe.json").read_text())
    assert card["question"] == "What is it?"
    assert card["explanation"] == "An explanation."
    assert card["answer"] == ["It is 3."]
    assert card["claims"] == ["D1.2"]
    assert card["holds"] is True
    assert card["table"] == {"header": ["n", "x (s)"], "rows": [["1", "0.1235"], ["2,000", ""]]}
    assert card["figures"] == [{"file": "probe.svg", "title": "A line", "alt": "It rises."}]
    assert card["command"] == "python experiments/probe.py --quick --set rate=2"
    assert card["settings"]["rate"] == 2.0
    assert set(card["versions"]) == {"python", "refgrad", "jax", "jaxlib", "numpy", "matplotlib"}
    assert (tmp_path / "out/probe.csv").read_text() == "n,x (s)\n1,0.12345678\n2000,\n"
    assert "<desc" in (tmp_path / "out/probe.svg").read_text()
    assert not list((tmp_path / "out").glob("*.part"))


def test_what_does_not_hold_is_said_and_exits_1(run_probe, tmp_path, capsys):
    assert run_probe(result(failures=["3 is not 4"])) == 1
    assert "DOES NOT HOLD: 3 is not 4" in capsys.readouterr().out
    assert json.loads((tmp_path / "out/probe.json").read_text())["holds"] is False


def test_no_card_where_a_figure_fails(run_probe, tmp_path):
    """A card says that all else lies beside it: with a fault planted in the drawing there is none."""
    with pytest.raises(ValueError, match="text alternative"):
        run_probe(result(figures=[Figure("A line", " ", line)]))
    assert not (tmp_path / "out/probe.json").exists()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567, "1,234,567"),
        (0.5, "0.5"),
        (0.0, "0"),
        (123.456, "123.5"),
        (1.23456e-7, "1.235e-07"),
        (2.5e9, "2.500e+09"),
        (float("nan"), "nan"),
        (True, "True"),
        (None, ""),
    ],
)
def test_shown(value, text):
    assert shown(value) == text


def test_interleaved_tells_a_slow_call_from_a_fast_one():
    calls = []
    work = {"fast": lambda: calls.append("fast"), "slow": lambda: (calls.append("slow"), time.sleep(0.002))}
    seconds = interleaved(work, rounds=3)
    assert seconds["slow"] > 0.002 > seconds["fast"]
    assert calls[2:6] == ["fast", "fast", "slow", "slow"]
    assert calls[6:10] == ["slow", "slow", "fast", "fast"]
    with pytest.raises(ValueError, match="at least 1"):
        interleaved(work, rounds=0)
