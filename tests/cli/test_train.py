"""`refgrad train`: what it prints and leaves, its exit codes, and what bad options say before anything is written."""

import json
import re

import pytest

from refgrad.cli import main
from tests.train.runs import VALUES, settings

FILES = {"run.json", "metrics.jsonl", "metrics.lock", "checkpoints", "loss.svg", "samples.txt", "result.json"}


def options(folder, **train):
    """The command line of a run of twelve tiny steps."""
    values = settings(folder, **train).as_mapping()
    given = {"data.text": values["data"]["text"]}
    given |= {f"{section}.{key}": values[section][key] for section in VALUES for key in VALUES[section]}
    given |= {f"train.{key}": value for key, value in train.items()}
    return [word for key, value in given.items() for word in ("--set", f"{key}={json.dumps(value)}")]


@pytest.mark.slow
def test_from_nothing_to_a_model(tmp_path, capsys):
    out = tmp_path / "out"
    found = tmp_path / "found.json"
    assert main(["train", "--out", str(out), "--json", str(found), *options(tmp_path)]) == 0
    printed, said = capsys.readouterr()
    assert {path.name for path in out.iterdir()} == FILES
    loss = json.loads(found.read_text())["loss"]
    assert re.search(rf"GPT-2 +{loss:.4f}", printed) and "bigram" in printed and "lines accepted" in printed
    for text in ("memory of a step", "MFU", "tokens/s", "waiting for data", "‖g‖", "left"):
        assert text in said
    assert (out / "loss.svg").read_text().count("<title") == 1
    assert main(["train", "--out", str(out), *options(tmp_path)]) == 2
    assert "holds a run already: go on with it by --resume" in capsys.readouterr().err
    assert main(["train", "--out", str(out), "--resume"]) == 0
    again, said = capsys.readouterr()
    assert "resumed at step 12: bit for bit as if it had never stopped" in said
    assert again.split("s; checkpoints")[0].split("\n\n")[:-1] == printed.split("s; checkpoints")[0].split("\n\n")[:-1]


@pytest.mark.slow
def test_a_rate_without_bounds_stops_with_1(tmp_path, capsys):
    out = tmp_path / "out"
    wild = options(tmp_path, learning_rate=1e36, clip_norm=0, rules="derived")
    assert main(["train", "--out", str(out), *wild]) == 1
    said = capsys.readouterr().err
    assert re.search(r"refgrad train: step \d+: the loss is (nan|inf)", said)
    assert not (out / "result.json").exists() and not list((out / "checkpoints").glob("*[0-9]"))


BAD = {
    "key": (["--set", "train.batsh=3"], "train.batsh = 3 is not a setting: did you mean batch?"),
    "section": (["--set", "trian.batch=3"], "trian is not a section of a config: did you mean train?"),
    "value": (["--set", "train.memory=fats"], "train.memory is 'fats', but must be one of 'plain', 'fast', 'small'"),
    "together": (["--set", "train.memory=fast", "--set", "train.accumulate=2"], "take memory = 'plain' or"),
    "no run": (["--resume"], "holds no run: it has no run.json"),
    "no text": (["--set", "data.text=['nowhere']"], "nowhere"),
    "a path for a list": (
        ["--set", "data.text=/path"],
        "is '/path', but must be a list of texts: write data.text=",
    ),
    "empty path": (["--set", 'data.text=[""]'], "'' in the list of files is not a path: name a file or a folder"),
    "warm-up": (["--set", "train.steps=50"], "train.steps = 50: lower it too, such as train.warmup=5, or raise train."),
    "32 bits": (["--set", "train.batch=99999999999999"], "train.batch is 99999999999999, but must be below 2147483648"),
    "brackets": (["--set", "train.batch=" + "[" * 5000], "is not a TOML value"),
    "port": (["--coordinator", "h:٣", "--processes", "2", "--process", "0"], "give HOST:PORT of process 0"),
    "vocabulary": (["--set", "data.tokenizer=bpe"], "'bpe' needs the folder of vocab.json and merges.txt"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_options_say_so_and_write_nothing(name, tmp_path, capsys):
    given, message = BAD[name]
    assert main(["train", "--out", str(tmp_path / "out"), *given]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


FILES_WITH_ERRORS = {
    "value": ("[train]\nbatch = 0\n", [], "config.toml: train.batch is 0, but must be at least 1"),
    "model": ("[model]\nn_layer = 'x'\n", [], "config.toml: model.n_layer is 'x', but must be an integer"),
    "key": ("[model]\nn_lyer = 1\n", [], "config.toml: model.n_lyer = 1 is not a key of the model's config"),
    "section": ("[trian]\nbatch = 1\n", [], "config.toml: trian is not a section of a config: did you mean train?"),
    "both": ("[train]\nsteps = 90\n", ["train.warmup=95"], "refgrad train: train.warmup is 95, but must be below"),
    "the shell": ("[train]\nsteps = 200\n", ["model.n_head=3"], "refgrad train: model.n_embd is 128, which n_head = 3"),
    "brackets": ("x = " + "[" * 200_000, [], "config.toml is not TOML that can be read"),
    "digits": ("x = " + "9" * 5000, [], "config.toml is not TOML that can be read"),
}


@pytest.mark.parametrize("name", FILES_WITH_ERRORS)
def test_errors_name_the_file_where_it_is_at_fault(name, tmp_path, capsys):
    text, changes, message = FILES_WITH_ERRORS[name]
    (tmp_path / "config.toml").write_text(text)
    given = [word for change in changes for word in ("--set", change)]
    assert main(["train", "--config", str(tmp_path / "config.toml"), "--out", str(tmp_path / "out"), *given]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
