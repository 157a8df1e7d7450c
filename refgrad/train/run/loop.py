"""Training, from settings to a trained model: one compiled step, with data loaded and checkpoints written beside it.

Nothing is compiled or written before settings, text and folder have been checked against each other.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from refgrad.models import gpt2
from refgrad.train.mesh import devices
from refgrad.train.optimiser import State
from refgrad.train.run import folder, machine, memory, metrics
from refgrad.train.run.checkpoints import Checkpoints
from refgrad.train.run.display import Display
from refgrad.train.run.program import CompiledStep
from refgrad.train.run.resumed import check_resumable, resumed
from refgrad.train.run.signals import Interrupted, Signals
from refgrad.train.run.throughput import peak_rate, step_flops
from refgrad.train.run.validation import Validation
from refgrad.train.run.watch import Stopped, Watch, concerned
from refgrad.train.settings import Data, Settings
from refgrad.train.text import tokens
from refgrad.train.text.batches import Batches
from refgrad.train.text.loader import Loader
from refgrad.train.text.tokenizers import BPE, BPE_FILES, Bytes, Tokenizer

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Trained:
    """A finished run, as `evaluate` takes it."""

    settings: Settings
    params: gpt2.Params
    text: tokens.TokenFile
    tokenizer: Tokenizer
    validation: Validation
    program: CompiledStep


def train(settings: Settings, out: Path, resume: bool, say: Say) -> Trained:
    """Train a model in a folder, from the beginning or from its newest good checkpoint.

    Args:
        settings: The settings of the run.
        out: The run's folder.
        resume: Go on from the newest good checkpoint.
        say: A function that is told what is trained on what, and what happens on the way.

    Raises:
        CheckpointError: A checkpoint cannot be written, or none can be read.
        Interrupted: A signal has ended the run, after a checkpoint.
        OSError: A text or a folder cannot be read or written.
        Stopped: Training has gone wrong.
        ValueError: Settings, texts and folders do not fit together; nothing has been compiled.
    """
    train, first = settings.train, devices.first()
    part = train.batch // train.accumulate
    mesh = devices.make_for(settings.model, part, train.sequence, settings.mesh.sizes, settings.mesh.axes)
    say = say if first else lambda text: None
    before = folder.record(out) if resume else None
    if before:
        if before.notice:
            say(before.notice)
        check_resumable((before.ran or before.stated).settings, settings)
        folder.check_folder(out)
        metrics.read(out / folder.METRICS)
    elif first:
        folder.refuse(out)
    memory.check(settings.model, train, devices.count(settings.mesh.sizes))
    tokenizer = make_tokenizer(settings.data)
    if tokenizer.vocab_size > settings.model.vocab_size:
        raise ValueError(
            f"model.vocab_size is {settings.model.vocab_size}, but the tokenizer has {tokenizer.vocab_size} ids"
        )
    text = tokens.build(settings.data.text or None, tokenizer, out.parent / "tokens", settings.data.validation)
    if before and before.run.tokens != text.digest:
        raise ValueError(f"the text is not that of the run in {out}: put it back, or take another folder by --out")
    batches = Batches(text.train, train.batch, train.sequence, train.seed, *devices.rows(mesh))
    validation = Validation(settings.model, train, text.validation, mesh)
    say(str(text))
    program = CompiledStep(settings.model, train, mesh)
    say(f"\n{program.plan}\n")
    run = folder.Run(settings, tokenizer.data(), text.digest)
    if first and not resume:
        out.mkdir(parents=True, exist_ok=True)
        folder.write(out, run)
    state = Trainer(run, out, program, validation, say).run(batches, before)
    return Trained(settings, state.params, text, tokenizer, validation, program)


def make_tokenizer(data: Data) -> Tokenizer:
    """Return the tokenizer of these settings. Raises as `BPE` does."""
    if data.tokenizer == "bytes":
        return Bytes()
    folder = Path(data.vocabulary)
    return BPE(*(folder / name for name in BPE_FILES.values()))


class Trainer:
    """The loop over the steps."""

    def __init__(self, run: folder.Run, out: Path, program: CompiledStep, validation: Validation, say: Say) -> None:
        """Train the run in the folder `out` by its compiled program."""
        self._run, self._out, self._program, self._validation = run, out, program, validation
        self._settings = settings = run.settings
        self._say = say
        self._key = jax.random.key(settings.train.seed)
        self._facts = machine.facts(dataclasses.asdict(settings.mesh))
        checkpoint = settings.checkpoint
        self._checkpoints = Checkpoints(out / folder.CHECKPOINTS, checkpoint.keep, checkpoint.asynchronous)

    def run(self, batches: Batches, before: folder.Record | None) -> State:
        """Return the state after the last step; `before` records the run to resume. Raises as `train` does."""
        train = self._settings.train
        state, start, about = self._begin(resume=before is not None)
        flops = step_flops(self._settings.model, train.batch, train.sequence)
        peak, source = peak_rate(train.dtype)
        self._say(f"MFU is relative to {peak / 1e9:,.0f} GFLOP/s per device, {source}")
        peak, first = peak * self._program.peaks, devices.first()
        with metrics.Metrics(self._out / folder.METRICS, start, first) as log:
            if before:
                self._say(resumed(start, about, before, self._run, self._facts, log.digest))
                if first and (before.stated != self._run or not before.sealed):
                    folder.write(self._out, self._run)
            with (
                Display(start, train.steps, train.batch * train.sequence, flops, peak, first) as display,
                Loader(lambda n: self._program.place(batches.at(n)), start) as loader,
                self._checkpoints,
                Signals() as signals,
            ):
                return self._steps(state, start, loader, log, display, signals)

    def _steps(
        self, state: State, start: int, loader: Loader, log: metrics.Metrics, display: Display, signals: Signals
    ) -> State:
        """Return the state after the last step, given that after `start` steps. Raise `Interrupted` after a signal."""
        train, done, number = self._settings.train, start, 0
        watch = Watch(train.spike, [line["loss"] for line in log.lines if "loss" in line])
        for done in range(start + 1, train.steps + 1):
            state = self._step(done, state, loader, watch, log, display)
            self._checkpoints.poll()
            last, number = done == train.steps, signals.asked()
            if last or done % train.validate_every == 0:
                value = self._validation.few(state.params, self._program.place)
                log.add(done, validation_loss=value)
                display.say(f"step {done:,}  validation {value:.4f}  {display.rates()}")
            if last or number or done % self._settings.checkpoint.every == 0:
                self._checkpoints.save(done, state, self._about(done, log.digest))
            if number:
                break
        if number := number or signals.asked():  # a signal may have come since the last step
            self._checkpoints.finish()
            raise Interrupted(number, done, train.steps)
        return state

    def _step(
        self, done: int, state: State, loader: Loader, watch: Watch, log: metrics.Metrics, display: Display
    ) -> State:
        """Return the state after step `done`. Raise `Stopped` if its loss or gradients are wrong."""
        began, waited = time.perf_counter(), loader.waited
        tokens, targets = next(loader)
        # finished on every device before the next program with collectives starts (digest.py)
        state, measures = jax.block_until_ready(self._program.step(state, tokens, targets))
        loss, norm = float(measures.loss), float(measures.norm)
        if wrong := watch.wrong(loss, norm):
            self._checkpoints.finish()
            raise Stopped(self._stopped(done, f"{wrong}; {concerned(state, measures)}"))
        seconds, waited = time.perf_counter() - began, loader.waited - waited
        rate = self._program.learning_rate(done - 1)
        log.add(done, loss=loss, grad_norm=norm, learning_rate=rate, seconds=seconds, waited=waited)
        display.step(done, loss, norm, seconds, waited)
        return state

    def _begin(self, resume: bool) -> tuple[State, int, dict[str, Any] | None]:
        """Return the state to go on from, its step, and its checkpoint's metadata; None from the beginning."""
        restored = self._checkpoints.restore(self._program.like, self._say) if resume else None
        if restored is None:
            return self._program.first_state(self._key), 0, None
        state, checkpoint = restored
        if checkpoint.step > self._settings.train.steps:
            raise ValueError(
                f"train.steps is {self._settings.train.steps}, but the checkpoint is of step {checkpoint.step}: "
                "take more"
            )
        return state, checkpoint.step, checkpoint.about

    def _about(self, step: int, log: str) -> dict[str, Any]:
        """Return the checkpoint's metadata: the data's position, the random key, the run and the machine."""
        train = self._settings.train
        return {
            "position": step * train.batch * train.sequence,
            "key": jax.random.key_data(self._key).tolist(),
            "machine": self._facts,
            "run": self._run.data(),
            "metrics": log,
        }

    def _stopped(self, step: int, what: str) -> str:
        good = self._checkpoints.steps()
        if not good:
            return f"step {step:,}: {what}. No checkpoint is written yet: begin again, as with a lower learning rate"
        return (
            f"step {step:,}: {what}. The last good checkpoint is that of step {good[-1]:,}: go on from it by --resume, "
            f"as with --set train.learning_rate={self._settings.train.learning_rate / 3:.1g}"
        )
