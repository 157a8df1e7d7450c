"""A run that goes on: by which settings, and the one line that says what is not as it was."""

import json

import pytest

from refgrad.train.run import folder as run_folder
from refgrad.train.run.checkpoints import seal
from refgrad.train.run.folder import Record, Run
from refgrad.train.run.program import CompiledStep
from refgrad.train.run.resumed import EXACTLY, check_resumable, resumed
from refgrad.train.settings import Settings
from tests.train.runs import lines, run, settings

FACTS = {"cores": 2}
RUN = Run(Settings(), {"kind": "bytes"}, "tokens")
SLOWER = RUN._replace(settings=RUN.settings.updated({"train": {"learning_rate": 1e-5}}))
AS_IT_WAS = Record(RUN, True, RUN)
ABOUT = {"machine": FACTS, "run": json.loads(json.dumps(RUN.data())), "metrics": "digest"}


def said(about=ABOUT, before=AS_IT_WAS, run=None, facts=FACTS, metrics="digest"):
    return resumed(8, about, before, run or before.run, facts, metrics)


def test_as_it_was():
    assert said() == f"resumed at step 8: {EXACTLY}"


RATE = "train.learning_rate: 0.003 → 1e-05"
OTHERWISE = {
    "the shell": (said(run=SLOWER), [f"with other settings: {RATE}"]),
    "run.json, changed by a run that was then killed": (said(before=Record(SLOWER, True, RUN)), [f"settings: {RATE}"]),
    "run.json, edited": (
        said(before=Record(SLOWER, False, RUN)),
        ["been edited, which is not followed: ", RATE],
    ),
    "run.json, edited, its seal taken out": (said(before=Record(SLOWER, None, RUN)), [f"is not followed: {RATE}"]),
    "checkpoints alone": (
        said(run=RUN._replace(settings=RUN.settings.updated({"checkpoint": {"every": 9}}))),
        ["with other settings: checkpoint.every: 200 → 9"],
    ),
    "no sealed settings": (
        said({"machine": FACTS}, Record(RUN, None, None)),
        ["resumed at step 8, with the settings of run.json, since this checkpoint is from before they were sealed"],
    ),
    "metrics": (said(metrics="other"), ["metrics.jsonl is not what was written until then"]),
    "machine": (
        said(facts={"cores": 3}),
        ["resumed at step 8, within rounding, since other than before: cores"],
    ),
    "two things": (said(run=SLOWER, facts={"cores": 3}), ["cores: 2 → 3; with other settings: train.learning_rate"]),
    "no checkpoint, edited": (said(None, Record(SLOWER, False, None)), ["no checkpoint is written yet", "been edited"]),
    "no checkpoint, the shell": (said(None, Record(RUN, True, None), SLOWER), ["from the beginning, with other", RATE]),
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_otherwise(name):
    line, parts = OTHERWISE[name]
    assert EXACTLY not in line and "\n" not in line
    for part in parts:
        assert part in line


def edit(path, **values):
    data = json.loads(path.read_text())
    data["settings"]["train"] |= values
    path.write_text(json.dumps(data))


def test_the_settings_to_go_on_with(tmp_path, monkeypatch):
    about = ABOUT
    monkeypatch.setattr(run_folder, "newest_about", lambda folder: about)
    run_folder.write(tmp_path, SLOWER)
    assert run_folder.record(tmp_path).run == SLOWER  # of a run that was killed before its first checkpoint
    edit(tmp_path / run_folder.RUN, seed=7)
    assert (
        run_folder.record(tmp_path) == Record(run_folder.read(tmp_path), False, RUN)
        and run_folder.record(tmp_path).run == RUN
    )
    about = None
    assert run_folder.record(tmp_path).run.settings.train.seed == 7
    data = json.loads((tmp_path / run_folder.RUN).read_text())
    del data["sha256"]
    (tmp_path / run_folder.RUN).write_text(json.dumps(data))
    assert run_folder.record(tmp_path).sealed is None


def test_a_run_stored_with_an_old_name_goes_on_with_a_notice(tmp_path, monkeypatch):
    run = Run(SLOWER.settings.updated({"train": {"rules": "derived"}}), SLOWER.tokenizer, SLOWER.tokens)
    data = run.data()
    data["settings"]["train"]["rules"] = "document"
    sealed = {**data, "sha256": seal(data)}
    (tmp_path / run_folder.RUN).write_text(json.dumps(sealed))
    notice = f"train.rules = 'document' of the run in {tmp_path} is now called 'derived'"
    assert run_folder.read(tmp_path) == run and run_folder.record(tmp_path) == Record(run, True, None, notice)
    monkeypatch.setattr(run_folder, "newest_about", lambda folder: {"run": data})
    assert run_folder.record(tmp_path) == Record(run, True, run, notice)
    run_folder.write(tmp_path, run)
    assert run_folder.record(tmp_path).notice == notice  # the checkpoint has it still
    told = []
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        run_folder.load_model(tmp_path, told.append)
    assert told == [notice]


WRONG = {
    "list": lambda data: [data],
    "number": lambda data: 3,
    "settings": lambda data: {**data, "settings": [1]},
    "section": lambda data: {**data, "settings": {"train": "x"}},
    "value": lambda data: {**data, "settings": {"train": {"batch": "x"}}},
    "bound": lambda data: {**data, "settings": {"train": {"batch": 0}}},
    "tokenizer": lambda data: {**data, "tokenizer": "bytes"},
    "tokens": lambda data: {**data, "tokens": None},
    "missing": lambda data: {"settings": {}},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_run_of_wrong_types_is_named(name, tmp_path):
    (tmp_path / run_folder.RUN).write_text(json.dumps(WRONG[name](RUN.data())))
    with pytest.raises(ValueError, match=r"run\.json is damaged \(.*\): put it back"):
        run_folder.record(tmp_path)


def test_brackets_without_end_and_numbers_without_end_are_named(tmp_path):
    for text in ("[" * 200_000, '{"tokens": ' + "9" * 5000 + "}", "{", "\xff"):
        (tmp_path / run_folder.RUN).write_bytes(text.encode("latin-1"))
        with pytest.raises(ValueError, match=r"run\.json is damaged \(.*\): put it back"):
            run_folder.read(tmp_path)


def test_places_that_take_no_run(tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ValueError, match=r"cannot be a folder, since .*file is not one: take another"):
            run_folder.refuse(place)
    run_folder.write(tmp_path, RUN)
    (tmp_path / run_folder.CHECKPOINTS).touch()
    with pytest.raises(ValueError, match=r"checkpoints is not a folder, but must hold the checkpoints: move it away"):
        run_folder.record(tmp_path)
    (tmp_path / run_folder.RUN).unlink()
    with pytest.raises(ValueError, match=r"holds checkpoints or metrics, but no run\.json: put that back"):
        run_folder.refuse(tmp_path)


class Killed(Exception):
    """What ends a run in a test, at any place."""


def killed_at(step, monkeypatch, *given, **how):
    place, reads = CompiledStep.place, iter(range(100))

    def killing(program, ids):
        if next(reads) == step:
            raise Killed
        return place(program, ids)

    with monkeypatch.context() as patch:
        patch.setattr(CompiledStep, "place", killing)
        with pytest.raises(Killed):
            run(*given, **how)


def rates(out):
    return [line["learning_rate"] for line in lines(out / run_folder.METRICS) if "loss" in line]


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_once")
def test_changed_settings_stay_changed(tmp_path, monkeypatch):
    out, chosen = tmp_path / "run", settings(tmp_path, validate_every=100)
    slower = chosen.updated({"train": {"learning_rate": 1e-5}})
    killed_at(5, monkeypatch, chosen, out)  # after the checkpoint of step 4
    killed_at(5, monkeypatch, slower, out, resume=True)  # after that of step 8
    edit(out / run_folder.RUN, learning_rate=1.0)
    (out / run_folder.METRICS).unlink()
    _, told = run(run_folder.record(out).run.settings, out, resume=True)
    line = next(text for text in told if text.startswith("resumed at step 8"))
    assert "run.json has been edited, which is not followed: train.learning_rate: 1e-05 → 1.0" in line
    assert "metrics.jsonl is not what was written until then" in line and EXACTLY not in line
    assert max(rates(out)) < 1e-5
    assert run_folder.record(out).sealed and run_folder.read(out).settings == slower


def test_what_may_change_within_a_run():
    before = Settings()
    check_resumable(before, before.updated({"train": {"learning_rate": 1e-4}, "checkpoint": {"keep": 9}}))
    for values in ({"model": {"n_layer": 1}}, {"data": {"validation": 0.2}}, {"train": {"seed": 1}}):
        with pytest.raises(ValueError, match="cannot change within a run"):
            check_resumable(before, before.updated(values))
