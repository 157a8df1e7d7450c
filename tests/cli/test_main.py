"""Parts of `main` in every sub-command: help before JAX, hints, outputs tried first, colours, encodings, pipes."""

import io
import subprocess
import sys

import jax
import pytest

from refgrad._text import columns, table
from refgrad.bench.contenders import BASELINE, CONTENDERS
from refgrad.bench.sweep import POINTS
from refgrad.claims import DOCUMENTS
from refgrad.cli import COMMANDS, INTERRUPTED, PIPE_CLOSED, claims, main, options, terminal
from refgrad.train.sampling import Sampling

TARGET = "m.py:f"


def test_an_interruption_is_one_line(monkeypatch, capsys):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(claims, "run", interrupted)
    assert main(["claims"]) == INTERRUPTED
    assert capsys.readouterr().err == "refgrad claims: interrupted\n"


@pytest.mark.parametrize("error", [jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 8 GiB"), MemoryError("8 GiB")])
def test_a_machine_without_enough_memory_is_one_line(error, monkeypatch, capsys):
    def exhausted(given):
        raise error

    monkeypatch.setattr(claims, "run", exhausted)
    assert main(["claims"]) == 2
    line = capsys.readouterr().err
    assert line.startswith("refgrad claims: out of memory: take a smaller batch") and line.endswith("8 GiB\n")


def test_an_error_of_our_own_is_not_taken_for_the_machines(monkeypatch):
    def wrong(given):
        raise RuntimeError("a fault")

    monkeypatch.setattr(claims, "run", wrong)
    with pytest.raises(RuntimeError, match="a fault"):
        main(["claims"])


def test_help_and_errors_in_options_come_before_jax():
    script = (
        "import sys; from refgrad.cli import main; codes = [main(w) for w in (['-h'], ['--version'], ['cost', '-h']"
    )
    script += ", ['verify', '--dtype', 'f'])]; assert codes == [0, 0, 0, 2] and 'jax' not in sys.modules, codes"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "refgrad verify: --dtype: invalid choice" in done.stderr and "jax " in done.stdout


def test_the_lists_that_are_written_without_jax_are_those_of_the_rooms():
    assert set(options.CONTENDERS) == set(CONTENDERS) - {BASELINE}
    assert tuple(POINTS) == options.SWEEPS and tuple(DOCUMENTS) == options.DOCUMENTS
    assert tuple(claims.VERDICTS) == options.VERDICTS
    parser = options.Parser()
    options.sample(parser)
    given, how = parser.parse(["folder"]), Sampling()
    assert (given.temperature, given.top_k, given.top_p) == (how.temperature, how.top_k, how.top_p)


def test_nothing_says_what_there_is(capsys):
    assert main([]) == 2
    out = capsys.readouterr().out
    assert all(f"\n  {name}" in out for name in COMMANDS)


HINTS = {
    "a command": (["verfy"], "verfy is not a command: did you mean verify?"),
    "upper case": (["COST"], "COST is not a command: did you mean cost?"),
    "a target alone": ([TARGET], f"{TARGET} is not a command: refgrad verify {TARGET}, or refgrad cost {TARGET}"),
    "an option": (["cost", "--jsn", "x"], "--jsn is not an option here: did you mean --json?"),
    "one with a value": (["verify", "--sede=3"], "--sede=3 is not an option here: did you mean --seed?"),
    "two words": (["verify", TARGET, "--args", "f32[3]", "f32[4]"], "f32[4] is not an option here"),
    "a claim": (["claims", "d0.6"], "d0.6 is not a row of the ledger: did you mean D0.6?"),
    "an operation": (["verify", "--op", "Layer_Norm"], "--op Layer_Norm: no such operation: did you mean layer_norm?"),
    "a seed": (["verify", "--seed", "٣"], "--seed: '٣' is not an integer from 0 to 4294967295"),
    "a long one": (["verify", "--op", "x" * 100_000], "characters left out"),
}


@pytest.mark.parametrize("what", HINTS)
def test_a_misspelt_word_has_a_hint(what, capsys):
    words, message = HINTS[what]
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert message in err and not out and err.count("\n") == 1 and len(err) < 2_000


OUTPUTS = [
    *(["verify", "--json"], ["cost", "--json"], ["cost", "--csv"], ["claims", "--json"], ["report", "--out"]),
    *(["bench", "--json"], ["bench", "--figure"], ["sample", "folder", "--json"], ["train", "--json"]),
]
PLACES = {
    "a missing folder": ("missing/x.svg", "is not a folder"),
    "a folder": ("folder.svg", "it is a folder"),
    "below a file": ("file/x.svg", "is not a folder"),
    "too long a name": ("x" * 300 + ".svg", "cannot be written"),
    "no name": ("", "the name is empty"),
    "a file system of the kernel's": ("/proc/x.svg", "cannot be written"),
}


@pytest.mark.parametrize("words", OUTPUTS, ids=" ".join)
@pytest.mark.parametrize("place", PLACES)
def test_an_output_is_tried_before_anything_is_done(words, place, tmp_path, monkeypatch, capsys):
    name, message = PLACES[place]
    if words[-1] == "--figure" and not name:
        message = "must end in .svg or .png"
    (tmp_path / "folder.svg").mkdir()
    (tmp_path / "file").write_text("kept")
    monkeypatch.chdir(tmp_path)
    assert main([*words, name]) == 2
    out, err = capsys.readouterr()
    assert words[-1] in err and message in err and err.count("\n") == 1 and not out
    assert (tmp_path / "file").read_text() == "kept" and len(list(tmp_path.iterdir())) == 2


def test_nothing_is_written_twice_or_over_what_is_read(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text("kept")
    for words in (
        ["cost", "--json", f"{tmp_path}/x", "--csv", f"{tmp_path}/../{tmp_path.name}/x"],
        ["verify", f"{path}:f", "--args", "f32[3]", "--json", str(path)],
        ["cost", "--config", str(path), "--json", str(path)],
    ):
        assert main(words) == 2
        assert "would overwrite" in capsys.readouterr().err
    assert path.read_text() == "kept"
    assert main(["cost", "--json", "/dev/null", "--csv", "/dev/null", "--set", "x"]) == 2
    assert "would overwrite" not in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("name", "value", "colours"), [("X", "", True), ("NO_COLOR", "1", False), ("TERM", "dumb", False)]
)
def test_verdicts_have_colours_on_a_terminal(monkeypatch, name, value, colours):
    for variable in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", stream := Terminal())
    text = "linear  0.1  ok\nadd     7.2  FAIL: NaN\n\nwhat is ok holds\n"
    with terminal.output(verdicts=True):
        print(text, end="")
    shown = stream.getvalue()
    assert ("\x1b[32mok\x1b[0m" in shown and "\x1b[31mFAIL\x1b[0m:" in shown) == colours
    assert (
        "what is ok holds" in shown
        and shown.replace("\x1b[32m", "").replace("\x1b[31m", "").replace("\x1b[0m", "") == text
    )


def test_no_colours_in_a_file(monkeypatch):
    monkeypatch.setattr(sys, "stdout", stream := io.StringIO())
    with terminal.output(verdicts=True):
        print("x  ok")
    assert stream.getvalue() == "x  ok\n"


def test_an_ascii_locale_loses_nothing_but_its_signs(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    with terminal.output(verdicts=False):
        print("4·ε·√n  2 × 3  ─── Σ x̂ é 字: Everything holds.")
    assert raw.getvalue() == b"4*eps*sqrtn  2 x 3  --- sum x e ?: Everything holds.\n"


def test_a_reader_that_goes_away_is_no_error():
    script = "import sys; from refgrad.cli import main; sys.exit(main(['--help']))"
    command = f'(sleep 0.5; exec "{sys.executable}" -c "{script}") | :; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stdout.strip() == str(PIPE_CLOSED) and not done.stderr


NUMBERS = [f"{10**9 + n:,}" for n in range(14)]


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_a_table_fits_whatever_it_holds(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    assert columns() == width
    words = "a cause that takes many words, among them an_identifier_that_is_much_longer_than_a_column_ever_will_be"
    header = ["operation", "argument", *(f"figure {n}" for n in range(14)), "verdict"]
    rows = [["layer_norm", words, *NUMBERS, "ok"], ["add", "x", *NUMBERS[::-1], f"FAIL: {words}"]]
    text = table(header, rows, notes=[words, ""])
    assert max(map(len, text.splitlines())) <= width
    assert all(text.count(number) == 2 for number in NUMBERS)
    assert text.count("layer_norm") == text.count("operation") >= 1


def test_a_narrow_table_is_left_as_it_is():
    assert table(["a", "n"], [["x", "1"], ["yy", "22"]]) == "a    n\n──  ──\nx    1\nyy  22"
