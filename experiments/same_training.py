"""Do the derived rules train a GPT-2 as autodiff does?

Both train the tiny model from the same weights on the same batches of the Python standard library's source, in float32
with AdamW. Apart: the parameters' difference at the end, over their norm.

    python experiments/same_training.py
"""

import dataclasses
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from _common import Figure, Result, Table, main, track
from _optax import optax

from refgrad.models import gpt2
from refgrad.report.figures import INK, series
from refgrad.report.text import standard_library_ids

CONFIG = gpt2.Config()
RULES = ("derived", "autodiff")
ALLOWED = 1e-3  # nats between the two curves: roundings, amplified by training


@dataclasses.dataclass(frozen=True)
class Settings:
    """Steps, the batch, how many batches are taken in turn, tokens in a sequence, the learning rate."""

    steps: int
    batch: int
    batches: int
    sequence: int
    rate: float

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.batches, self.sequence) < 1:
            raise ValueError("steps, batch, batches and sequence must be at least 1")
        if self.sequence > CONFIG.n_positions:
            raise ValueError(f"sequence is {self.sequence}, but the model has {CONFIG.n_positions} positions")


def train(settings: Settings, rules: str) -> tuple[gpt2.Params, list[float]]:
    """Train by the named rules; returns the parameters and the loss before each step."""
    optimizer = optax.adamw(settings.rate)
    params = gpt2.init(jax.random.key(0), CONFIG)
    state = optimizer.init(params)
    tokens, targets = standard_library_ids(settings.batch * settings.batches, settings.sequence)

    @jax.jit
    def step(params: gpt2.Params, state: optax.OptState, tokens: jax.Array, targets: jax.Array):
        loss = partial(gpt2.loss, tokens=tokens, targets=targets, config=CONFIG, rules=rules)
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    losses = []
    for n in track(range(settings.steps), f"{rules} rules"):
        start = n % settings.batches * settings.batch
        batch = slice(start, start + settings.batch)
        params, state, value = step(params, state, jnp.asarray(tokens[batch]), jnp.asarray(targets[batch]))
        losses.append(float(value))
    return params, losses


def run(settings: Settings) -> Result:
    """Train twice and compare."""
    runs = {rules: train(settings, rules) for rules in RULES}
    curves = {rules: losses for rules, (_, losses) in runs.items()}
    one, other = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)]) for params, _ in runs.values())
    apart = float(np.linalg.norm(one - other) / np.linalg.norm(other))
    differences = [abs(a - b) for a, b in zip(*curves.values(), strict=True)]
    rows = [[f"{rules} rules", losses[0], losses[-1]] for rules, losses in curves.items()]
    answer = [
        f"The losses differ by at most {max(differences):.1e} nats over {settings.steps} steps.",
        f"The parameters end {apart:.1e} apart, relative to their norm.",
    ]
    failures = [f"the losses differ by {max(differences):.1e}, but may by {ALLOWED}"] * (
        not max(differences) <= ALLOWED
    )
    data = Table(["step", *curves], [[n, *pair] for n, pair in enumerate(zip(*curves.values(), strict=True))])
    table = Table(["trained by", "first loss (nats)", "last loss (nats)"], rows)
    return Result(answer, table, [figure(curves, differences)], ("D1.14",), data, failures)


def figure(curves: dict[str, list[float]], differences: list[float]) -> Figure:
    """The two loss curves, and below them the absolute difference on a logarithmic axis."""

    def paint(panels) -> None:
        top, bottom = panels
        bottom.semilogy(np.maximum(differences, 1e-9), color=INK, linewidth=1)
        bottom.set(xlabel="step", ylabel="difference (nats)")
        for n, (rules, losses) in enumerate(curves.items()):
            top.plot(losses, label=f"{rules} rules", **{**series(n), "marker": ""})
        top.set_ylabel("loss (nats per byte)")
        top.legend()

    first, last = ([losses[n] for losses in curves.values()] for n in (0, -1))
    alt = (
        f"Above, two loss curves that cover each other, from {first[0]:.2f} to {last[0]:.2f} and {last[1]:.2f} nats. "
        f"Below, their difference, at most {max(differences):.1e}."
    )
    options = {"size": (7, 5), "rows": 2, "sharex": True, "height_ratios": (2, 1)}
    return Figure("Training by derived rules and by autodiff", alt, paint, options=options)


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, Settings, run))
