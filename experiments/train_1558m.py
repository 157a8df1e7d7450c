"""Does a step of GPT-2 1.5B, in float32 with AdamW, fit into 24 GB of memory?

Parameters and both moments alone take 18.7 GB. The rest holds the step because each layer's gradients die as soon
as its parameters are updated, blocks are recomputed, and the head takes the vocabulary in chunks; autodiff keeps all
gradients and residuals at once. Checks for enough memory before it allocates, makes one array of the state after the
other, takes its steps on one and the same text, and compares the plan with the process's own peak.

    python experiments/train_1558m.py
"""

import dataclasses
import itertools
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from _common import Figure, Result, Table, main, temporaries, track
from _optax import optax

from refgrad import cost
from refgrad.bench import roofline
from refgrad.bench.machine import peak_memory
from refgrad.models import gpt2
from refgrad.report.figures import BLUE, HATCHES, ORANGE, VERMILLION, legend_below
from refgrad.report.text import standard_library_ids
from refgrad.train import allocator
from refgrad.train.optimiser import State, init_state
from refgrad.train.plan import nbytes, plan_of
from refgrad.train.step import make_step

SIZES = {"tiny": gpt2.Config(), **gpt2.SIZES}
PROGRAM = 0.5e9  # bytes at most that the allocator leaves unused between arrays
HOW: dict[str, Any] = {"rules": "fused", "memory": "small"}
WAYS = ("autodiff", "autodiff, recomputed", "update inside")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The model's size by name, the batch, the number of steps, AdamW's rate, and the peak allowed in GB."""

    model: str
    batch: int
    sequence: int
    steps: int
    learning_rate: float
    allowed: float

    @property
    def config(self) -> gpt2.Config:
        """The model's config."""
        return SIZES[self.model]

    def __post_init__(self) -> None:
        if self.model not in SIZES:
            raise ValueError(f"model is {self.model!r}, but must be one of {', '.join(map(repr, SIZES))}")
        for name in ("batch", "sequence"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 1")
        if self.steps < 2:
            raise ValueError(f"steps is {self.steps}, but the loss must be seen to fall: take 2 at least")
        if self.sequence > self.config.n_positions:
            raise ValueError(f"sequence is {self.sequence}, but {self.model} has {self.config.n_positions} positions")


@dataclasses.dataclass(frozen=True)
class Needs:
    """Bytes that a way of training needs at once."""

    state: int
    gradients: int
    residuals: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.state + self.gradients + self.residuals


def gb(size: float) -> str:
    """Bytes as a reader sees them."""
    return f"{size / 1e9:.3g} GB"


def autodiff_needs(settings: Settings, state: State, recompute: bool) -> Needs:
    """Memory for `jax.value_and_grad` of the plain model: every gradient and every residual, from shapes alone."""
    ids = jax.ShapeDtypeStruct((settings.batch, settings.sequence), jnp.int32)
    loss = partial(gpt2.loss, config=settings.config, rules="autodiff", scan=True, remat=recompute)
    params = jax.eval_shape(gpt2.stack, state.params)
    return Needs(nbytes(state), nbytes(state.params), cost.residuals(loss, params, ids, ids).bytes)


def available() -> float:
    """Bytes of memory that this machine can give, infinite where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


def check_memory(what: str, needed: float, there: float) -> None:
    """Raise MemoryError, saying what is missing, before anything is allocated."""
    if there < needed:
        raise MemoryError(
            f"{what} {gb(needed)}, but {gb(there)} are available: {gb(needed - there)} "
            "are missing; end other programs, or take a smaller model by --set model=774M"
        )


@dataclasses.dataclass(frozen=True)
class Measured:
    """The steps' losses, seconds and page faults, XLA's temporaries, and the process's peak."""

    losses: list[float]
    seconds: list[float]
    faults: list[int]
    temporaries: int
    peak: int
    floor: float
    """Seconds of the step's own products, each shape alone, and of AdamW's bytes: see `refgrad.bench.roofline`."""


def train(settings: Settings) -> Measured:
    """Check for memory, compile from shapes, print the plan, check again, make the state, take the steps."""
    allocator.keep_temporaries()
    tx = optax.adamw(settings.learning_rate)
    shapes = jax.eval_shape(partial(init_state, tx=tx), gpt2.shapes(settings.config))
    ids = standard_library_ids(settings.batch, settings.sequence)
    check_memory("parameters and moments alone need", nbytes(shapes) + PROGRAM, available())
    step = make_step(settings.config, tx, **HOW)
    compiled = step.lower(shapes, *ids).compile()
    allocator.return_unused()  # of the compiler
    print(f"{plan_of(compiled, settings.config, shapes, settings.batch, settings.sequence, **HOW)}\n", flush=True)
    check_memory("the steps need", temporaries(compiled) + nbytes(shapes) + PROGRAM, available())
    state = jax.block_until_ready(init_state(gpt2.init(jax.random.key(0), settings.config), tx))
    allocator.return_unused()  # of the random numbers' bits
    losses, seconds, faults = [], [], []
    for _ in track(range(settings.steps), "steps"):
        before, start = allocator.page_faults(), time.perf_counter()
        state, loss = jax.block_until_ready(compiled(state, *map(jnp.asarray, ids)))
        seconds.append(time.perf_counter() - start)
        faults.append(allocator.page_faults() - before)
        losses.append(float(loss))
    held = peak_memory()
    del state
    return Measured(losses, seconds, faults, temporaries(compiled), held, floor(settings))


def floor(settings: Settings) -> float:
    """Seconds that no step of this model can be faster than here."""
    runner = roofline.RooflineRunner(settings.config, settings.batch, settings.sequence, jnp.float32)
    runner.step()
    start = time.perf_counter()
    runner.step()
    return time.perf_counter() - start


def run(settings: Settings) -> Result:
    """Train, and compare the time and memory with autodiff's."""
    found = train(settings)
    tx = optax.adamw(settings.learning_rate)
    shapes = jax.eval_shape(partial(init_state, tx=tx), gpt2.shapes(settings.config))
    needs = {WAYS[n]: autodiff_needs(settings, shapes, recompute) for n, recompute in enumerate((False, True))}
    needs[WAYS[2]] = Needs(nbytes(shapes), 0, found.temporaries)
    failures = [
        f"the loss after step {n} is {now:.4f}, not below {before:.4f}"
        for n, (before, now) in enumerate(itertools.pairwise(found.losses), 1)
        if not now < before
    ]
    if found.peak > 1e9 * settings.allowed:
        failures.append(f"the peak is {gb(found.peak)}, but may be {settings.allowed} GB")
    answer = [
        f"GPT-2 {settings.model}, {settings.batch} × {settings.sequence}, float32, AdamW: {settings.steps} steps with "
        f"a peak of {gb(found.peak)} resident, the state itself {gb(nbytes(shapes))}, XLA's temporaries "
        f"{gb(found.temporaries)}.",
        f"The loss on the same text: {', '.join(f'{loss:.4f}' for loss in found.losses)}; "
        f"{min(found.seconds[1:]):.2f} s a step after the first, {found.faults[-1]:,} page faults in the last; "
        f"{found.floor / min(found.seconds[1:]):.2f} of the roofline, which is {found.floor:.2f} s.",
        *(
            f"{way.capitalize()}: {gb(need.total)} at once, of which {gb(need.gradients)} of gradients "
            f"and {gb(need.residuals)} kept for the backward pass"
            + (f": more than the {settings.allowed} GB allowed." if need.total > 1e9 * settings.allowed else ".")
            for way, need in list(needs.items())[:2]
        ),
    ]
    rows = [[n, *row] for n, row in enumerate(zip(found.losses, found.seconds, found.faults, strict=True))]
    table = Table(["step", "loss before it (nats)", "time (s)", "page faults"], rows)
    return Result(answer, table, [figure(needs, settings)], failures=failures)


def figure(needs: dict[str, Needs], settings: Settings) -> Figure:
    """Each way's bytes, stacked, and the memory allowed."""
    parts = {"parameters and moments": "state", "gradients, all at once": "gradients", "kept or temporary": "residuals"}

    def paint(axes) -> None:
        left = [0.0] * len(needs)
        for n, (label, name) in enumerate(parts.items()):
            size = [getattr(need, name) / 1e9 for need in needs.values()]
            color = (BLUE, ORANGE, VERMILLION)[n]
            axes.barh(list(needs), size, left=left, height=0.6, color=color, hatch=HATCHES[n], linewidth=0, label=label)
            left = [a + b for a, b in zip(left, size, strict=True)]
        for row, total in enumerate(left):
            axes.annotate(f" {total:.3g}", (total, row), va="center", fontsize=9)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set(xlabel="memory needed at once (GB)", ylabel="way to train")
        axes.set_xlim(0, 1.12 * max(left))
        legend_below(axes)

    alt = "Bars of the memory that a step needs. " + " ".join(
        f"{way}: {gb(need.total)}, of which state {gb(need.state)}, gradients {gb(need.gradients)}, "
        f"kept or temporary {gb(need.residuals)}."
        for way, need in needs.items()
    )
    return Figure(f"What a step of GPT-2 {settings.model} needs", alt, paint, options={"size": (7.5, 3.2)})


if __name__ == "__main__":
    try:
        sys.exit(main(__file__, __doc__, Settings, run))
    except MemoryError as error:
        sys.exit(f"not enough memory: {error}")
