"""A run: what it leaves, what stops it, and that it goes on as if it had never stopped."""

import dataclasses
import hashlib
import json
import os
import shutil
import signal

import chex
import jax
import pytest

from refgrad.train.optimiser import State
from refgrad.train.run import folder as run_folder
from refgrad.train.run import restore
from refgrad.train.run.evaluate import evaluate
from refgrad.train.run.program import CompiledStep
from refgrad.train.run.signals import Interrupted, Signals
from refgrad.train.run.watch import Stopped
from tests.train.runs import lines, run, settings

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, compiled_once):
    """(folder, settings, what was trained, what was said) of a run of twelve steps."""
    folder = tmp_path_factory.mktemp("finished")
    chosen = settings(folder)
    return folder / "run", chosen, *run(chosen, folder / "run")


class Killed(Exception):
    """What ends a run in a test, at any place."""


def test_what_a_run_leaves(finished):
    out, chosen, trained, said = finished
    assert [line["step"] for line in lines(out / run_folder.METRICS)] == [
        *range(1, 6),
        5,
        *range(6, 11),
        10,
        11,
        12,
        12,
    ]
    found = lines(out / run_folder.METRICS)
    assert found[0]["loss"] == pytest.approx(5.6, abs=0.2) and found[-2]["loss"] < found[0]["loss"] - 0.2
    assert {"step", "loss", "grad_norm", "learning_rate"} == set(found[0])
    assert "memory of a step" in "\n".join(said)
    assert json.loads((out / run_folder.RUN).read_text())["model"] == dataclasses.asdict(chosen.model)
    about = restore.newest_about(out / run_folder.CHECKPOINTS)
    assert about["run"] == {key: json.loads((out / run_folder.RUN).read_text())[key] for key in about["run"]}
    assert about["metrics"] == hashlib.sha256((out / run_folder.METRICS).read_bytes()).hexdigest()
    newest = run_folder.load_model(out)
    assert newest.step == 12 and newest.config == chosen.model
    chex.assert_trees_all_equal(newest.params, trained.params)


@pytest.mark.slow
def test_the_evaluation(finished):
    _, _, trained, _ = finished
    found = evaluate(trained)
    assert found.loss == pytest.approx(trained.validation.all(trained.params, trained.program.place))
    assert 0 < found.ngrams["trigram"] < found.ngrams["bigram"] < found.loss  # of twelve steps
    assert len(found.samples) == 2 and found.lines["held-out text"].lines > 0


@pytest.mark.parametrize("step", [pytest.param(3, marks=pytest.mark.slow), 6, pytest.param(11, marks=pytest.mark.slow)])
def test_killed_and_resumed_it_is_the_same(step, finished, tmp_path, monkeypatch):
    whole, chosen, _, _ = finished
    out, place = tmp_path / "run", CompiledStep.place
    shutil.copytree(whole.parent / "tokens", tmp_path / "tokens")
    reads = iter(range(100))

    def killing(program, ids):
        if next(reads) == step:
            raise Killed
        return place(program, ids)

    monkeypatch.setattr(CompiledStep, "place", killing)
    with pytest.raises(Killed):
        run(chosen, out)
    monkeypatch.setattr(CompiledStep, "place", place)
    trained, said = run(chosen, out, resume=True)
    text = "\n".join(said)
    assert ("bit for bit as if it had never stopped" in text) == (step > 4) != ("from the beginning" in text)
    assert lines(out / run_folder.METRICS) == lines(whole / run_folder.METRICS)
    chex.assert_trees_all_equal(trained.params, finished[2].params)


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), pytest.param(signal.SIGINT, marks=pytest.mark.slow)],
)
def test_a_signal_ends_it_with_a_checkpoint(number, finished, tmp_path, monkeypatch):
    whole, chosen, _, _ = finished
    out, place = tmp_path / "run", CompiledStep.place
    shutil.copytree(whole.parent / "tokens", tmp_path / "tokens")
    reads, handler = iter(range(100)), signal.getsignal(number)

    def signalling(program, ids):
        if next(reads) == 5:
            os.kill(os.getpid(), number)
        return place(program, ids)

    with monkeypatch.context() as patch:
        patch.setattr(CompiledStep, "place", signalling)
        with pytest.raises(
            Interrupted, match=f"{number.name} after step .* of 12, whose checkpoint is written"
        ) as said:
            run(chosen, out)
    assert said.value.exit_code == 128 + number and signal.getsignal(number) is handler
    reached = restore.complete(out / run_folder.CHECKPOINTS)[-1]
    assert 3 <= reached < 12 and lines(out / run_folder.METRICS)[-1]["step"] == reached
    _, told = run(chosen, out, resume=True)
    assert f"resumed at step {reached}: bit for bit as if it had never stopped" in told
    assert lines(out / run_folder.METRICS) == lines(whole / run_folder.METRICS)


def test_a_second_signal_acts_at_once():
    with Signals() as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals.asked() == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_folders_that_hold_a_run_or_none(finished, tmp_path):
    out, chosen, _, _ = finished
    with pytest.raises(ValueError, match="holds a run already: go on with it by --resume, take another"):
        run(chosen, out)
    with pytest.raises(ValueError, match="holds no run"):
        run(chosen, tmp_path, resume=True)
    with pytest.raises(ValueError, match=r"train\.seed is 5, but the run began with 0"):
        run(chosen.updated({"train": {"seed": 5}}), out, resume=True)


def test_text_and_vocabulary_that_do_not_fit(tmp_path):
    chosen = settings(tmp_path)
    (tmp_path / "text.py").write_text("x = 1\n" * 50_000)
    with pytest.raises(ValueError, match="do not fill a batch of 4096 × 16"):
        run(chosen.updated({"train": {"batch": 4096}}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_and_is_never_written(tmp_path, monkeypatch):
    chosen, out, place = settings(tmp_path), tmp_path / "run", CompiledStep.place
    first = CompiledStep.__init__

    def planted(self, *given):
        first(self, *given)
        step, count = self.step, iter(range(1, 100))

        def broken(state: State, tokens, targets):
            if next(count) == 7:
                weight = state.params["h"][0]["attn"]["c_proj"]["weight"]
                state.params["h"][0]["attn"]["c_proj"]["weight"] = weight.at[2, 1].set(float("nan"))
            return step(state, tokens, targets)

        self.step = broken

    monkeypatch.setattr(CompiledStep, "__init__", planted)
    with pytest.raises(Stopped, match=r"step 7: the loss is nan; params|step 7: the loss is nan; h\.0") as stopped:
        run(chosen, out)
    assert "h.0.attn.c_proj.weight holds 1 numbers that are not finite" in str(stopped.value)
    assert "The last good checkpoint is that of step 4: go on from it by --resume" in str(stopped.value)
    assert [line["step"] for line in lines(out / run_folder.METRICS)][-1] == 6
    monkeypatch.setattr(CompiledStep, "__init__", first)
    assert CompiledStep.place is place
    found = run_folder.load_model(out)
    assert found.step == 4 and all(bool(jax.numpy.isfinite(leaf).all()) for leaf in jax.tree.leaves(found.params))


@pytest.mark.slow
def test_a_spike_stops_and_a_lower_rate_goes_on(tmp_path):
    chosen, out = settings(tmp_path, steps=40, learning_rate=1e-2, spike=1.5), tmp_path / "run"
    run(dataclasses.replace(chosen, train=dataclasses.replace(chosen.train, steps=24)), out)
    again = chosen.updated({"train": {"learning_rate": 30.0}})
    with pytest.raises(Stopped, match=r"more than 1\.5 times the median .* the largest gradient is that of"):
        run(again, out, resume=True)
    trained, said = run(chosen, out, resume=True)
    assert any("with other settings: train.steps: 24 → 40" in text for text in said)
    assert trained.settings.train.steps == lines(out / run_folder.METRICS)[-1]["step"] == 40
