"""Can D1's four common mistakes be made where a network is a pure function?

D1 warns of gradients that pile up because nobody cleared them, of a loss turned into a plain number before its gradient
is asked for, of an input overwritten between the two passes, and of a detached tensor. Each is committed here as far as
JAX lets one, on a small network with derived rules, and what happens is recorded: impossible, an error, or a gradient
that is exactly zero.

    python experiments/four_mistakes.py
"""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _common import Figure, Result, Table, main, track

from refgrad.models import mlp
from refgrad.report.figures import series


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes of the network and its examples, steps of gradient descent and their rate."""

    examples: int
    inputs: int
    hidden: int
    steps: int
    rate: float

    def __post_init__(self) -> None:
        for name in ("examples", "inputs", "hidden", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 1")


class Finding(NamedTuple):
    """The outcome of a mistake, and the evidence."""

    claim: str
    mistake: str
    became: str
    seen: str
    holds: bool


def problem(settings: Settings) -> tuple[mlp.Params, jax.Array, jax.Array]:
    """Parameters, inputs and targets."""
    keys = jax.random.split(jax.random.key(0), 3)
    params = mlp.init(keys[0], (settings.inputs, settings.hidden, 1))
    x = jax.random.normal(keys[1], (settings.examples, settings.inputs), jnp.float32)
    return params, x, jax.random.normal(keys[2], (settings.examples, 1), jnp.float32)


def descend(settings: Settings, pile_up: bool) -> list[float]:
    """The loss before each step of gradient descent; with `pile_up`, by the sum of all gradients so far."""
    params, x, t = problem(settings)
    kept = jax.tree.map(jnp.zeros_like, params)
    step = jax.jit(jax.value_and_grad(lambda p: mlp.loss(p, x, t, "tanh") / settings.examples))
    losses = []
    for _ in track(range(settings.steps), "piled up" if pile_up else "as it should be"):
        loss, grads = step(params)
        kept = jax.tree.map(jnp.add, kept, grads) if pile_up else grads
        params = jax.tree.map(lambda w, g: w - settings.rate * g, params, kept)
        losses.append(float(loss))
    return losses


def accumulated(settings: Settings) -> Finding:
    """D1.15: JAX has no `.grad` to forget; two calls give the same gradients, bit for bit."""
    params, x, t = problem(settings)
    grad = jax.jit(jax.grad(mlp.loss))
    first, second = (jax.tree.leaves(grad(params, x, t)) for _ in range(2))
    same = all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    seen = "two calls give the same gradients, bit for bit" if same else "a second call gives other gradients"
    return Finding("D1.15", "gradients not cleared between steps", "impossible unless written out", seen, same)


def left_the_graph(settings: Settings) -> Finding:
    """D1.16: the loss as a Python number, within the function that is differentiated."""
    params, x, t = problem(settings)
    seen = _error(lambda: jax.grad(lambda p: float(mlp.loss(p, x, t)))(params))
    return Finding("D1.16", "the loss made a plain number", "an error while tracing", *seen)


def overwritten(settings: Settings) -> Finding:
    """D1.17: an input overwritten between the forward and the backward pass."""
    params, x, t = problem(settings)
    _, pullback = jax.vjp(lambda x: mlp.apply(params, x, "tanh"), x)
    before = pullback(t)[0]

    def assign() -> None:
        x[0] = 1.0  # type: ignore[index]

    seen, refused = _error(assign)
    changed = x.at[0].add(1.0)  # what JAX offers instead: another array
    unmoved = np.array_equal(before, pullback(t)[0]) and not np.array_equal(x, changed)
    became = "an error; x.at[0].add makes another array"
    return Finding("D1.17", "an input overwritten between the passes", became, seen, refused and unmoved)


def detached(settings: Settings) -> Finding:
    """D1.18: `stop_gradient` between two layers: the first layer's gradients are zero, the second's untouched."""
    params, x, t = problem(settings)

    def loss(params: mlp.Params, cut: bool) -> jax.Array:
        encoder = {"W1": params["W1"], "b1": params["b1"]}
        h = jnp.tanh(mlp.apply(encoder, x))
        h = jax.lax.stop_gradient(h) if cut else h
        return mlp.loss({"W1": params["W2"], "b1": params["b2"]}, h, t)

    whole, cut = (jax.grad(loss)(params, cut) for cut in (False, True))
    zero = not any(np.any(cut[name]) for name in ("W1", "b1"))
    kept = all(np.array_equal(cut[name], whole[name]) for name in ("W2", "b2"))
    norm = float(jnp.linalg.norm(whole["W1"]))
    seen = f"∂L/∂W1 has norm 0 instead of {norm:.3g}, ∂L/∂W2 is unchanged" if zero and kept else "the gradients differ"
    return Finding("D1.18", "a detached tensor (stop_gradient)", "a gradient of exactly zero", seen, zero and kept)


def _error(mistake: Callable[[], Any]) -> tuple[str, bool]:
    """Return JAX's words for a mistake, and True if it raised."""
    try:
        mistake()
    except Exception as error:
        said = str(error).splitlines()[0]
        return f"{type(error).__name__}: {said[:57] + '…' if len(said) > 58 else said}", True
    return "nothing", False


def run(settings: Settings) -> Result:
    """Commit all four, and show what piling up would do."""
    findings = [mistake(settings) for mistake in (accumulated, left_the_graph, overwritten, detached)]
    right, piled = descend(settings, False), descend(settings, True)
    return Result(
        answer=[
            *(f"{found.mistake.capitalize()}: {found.became}." for found in findings),
            f"Piled up on purpose, the loss ends at {piled[-1]:.3g} after {settings.steps} steps, having risen in "
            f"{sum(np.diff(piled) > 0)} of them; with each step's own gradients it ends at {right[-1]:.3g}, having "
            f"risen in {sum(np.diff(right) > 0)}.",
        ],
        table=Table(["claim", "mistake", "in pure functions", "seen"], [list(found[:4]) for found in findings]),
        data=Table(
            ["step", "loss", "loss, gradients piled up"],
            [[n, *pair] for n, pair in enumerate(zip(right, piled, strict=True))],
        ),
        figures=[_figure(right, piled)],
        claims=[found.claim for found in findings],
        failures=[f"{found.claim}: {found.seen}" for found in findings if not found.holds],
    )


def _figure(right: list[float], piled: list[float]) -> Figure:
    """The loss with fresh gradients, and with their running sum."""

    def paint(axes: Any) -> None:
        for n, (name, losses) in enumerate((("gradients of each step", right), ("gradients piled up", piled))):
            axes.plot(losses, label=name, markevery=max(1, len(losses) // 12), **series(n))
        axes.set(xlabel="step", ylabel="mean squared error", ylim=(0, None))
        axes.legend()

    alt = (
        f"With the gradients of each step the loss falls from {right[0]:.3g} to {right[-1]:.3g}; with their running "
        f"sum it swings between {min(piled):.3g} and {max(piled):.3g}."
    )
    return Figure("Gradients of each step, and piled up", alt, paint)


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, Settings, run))
