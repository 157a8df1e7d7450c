"""Does D3's network of about 20 lines learn the same by derived rules as by autodiff, and as NumPy does?

Two layers with a sigmoid between, summed squared error, plain gradient descent on fixed random examples: N = 64,
1000 inputs, 100 hidden units, 10 outputs, η = 1e-4, 2000 steps. D3 prints it in NumPy, importing `rand` and calling
`randn`; here the normal distribution is drawn. All three ways start from the same weights and take every step, NumPy by
D3's formulas in float64; the other two in float32.

    python experiments/twenty_lines.py
"""

import dataclasses
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _common import Figure, Result, Table, main, track

from refgrad.models import mlp
from refgrad.report.figures import legend_below, series


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes of the network, examples, steps, the rate, and how far losses may part, as a share of the loss."""

    examples: int
    inputs: int
    hidden: int
    outputs: int
    steps: int
    rate: float
    bound: float

    def __post_init__(self) -> None:
        for name in ("examples", "inputs", "hidden", "outputs", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 1")


def problem(settings: Settings) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Weights, inputs and targets, all standard normal."""
    draw = np.random.default_rng(0).standard_normal
    params = {"W1": draw((settings.inputs, settings.hidden)), "W2": draw((settings.hidden, settings.outputs))}
    return params, draw((settings.examples, settings.inputs)), draw((settings.examples, settings.outputs))


def by_jax(settings: Settings, rules: str) -> list[float]:
    """The loss before each step, gradients by the rules named."""
    params, x, t = jax.tree.map(lambda array: jnp.asarray(array, jnp.float32), problem(settings))

    @jax.jit
    def step(params: mlp.Params) -> tuple[mlp.Params, jax.Array]:
        loss, grads = jax.value_and_grad(mlp.loss)(params, x, t, "sigmoid", rules)
        return jax.tree.map(lambda w, g: w - settings.rate * g, params, grads), loss

    losses = []
    for _ in track(range(settings.steps), f"{rules} rules"):
        params, loss = step(params)
        losses.append(loss)
    return [float(loss) for loss in losses]


def by_numpy(settings: Settings) -> list[float]:
    """The loss before each step, by the chain rule written out in float64."""
    params, x, t = problem(settings)
    w1, w2 = params["W1"], params["W2"]
    losses = []
    for _ in track(range(settings.steps), "NumPy"):
        h = 1 / (1 + np.exp(-(x @ w1)))
        error = h @ w2 - t
        losses.append(float((error * error).sum()))
        dh = 2 * error @ w2.T
        w1, w2 = w1 - settings.rate * x.T @ (dh * h * (1 - h)), w2 - settings.rate * 2 * h.T @ error
    return losses


def run(settings: Settings) -> Result:
    """Train three times and compare the losses step by step."""
    ways: dict[str, Callable[[Settings], list[float]]] = {
        "derived rules": partial(by_jax, rules="derived"),
        "autodiff": partial(by_jax, rules="autodiff"),
        "NumPy, float64": by_numpy,
    }
    losses = {name: way(settings) for name, way in ways.items()}
    curves = np.array([losses[name] for name in ways])
    apart = [float(np.max(np.abs(curves[0] - other) / other)) for other in curves[1:]]
    fell = curves[0, -1] < curves[0, 0]
    failures = [] if fell else [f"the loss went from {curves[0, 0]:g} to {curves[0, -1]:g}"]
    failures += [
        f"derived rules and {name} part by {gap:.1e} of the loss, more than {settings.bound:g}"
        for name, gap in zip(list(ways)[1:], apart, strict=True)
        if not gap <= settings.bound
    ]
    rows = [[name, of[0], of[len(of) // 2], of[-1]] for name, of in losses.items()]
    return Result(
        answer=[
            f"By derived rules {len(curves[0])} steps take the loss from {curves[0, 0]:,.0f} to {curves[0, -1]:.4g}.",
            f"It parts from autodiff's by at most {apart[0]:.1e} of itself, from NumPy's in float64 by {apart[1]:.1e}.",
        ],
        table=Table(["way", "first loss", f"after {settings.steps // 2} steps", "last loss"], rows),
        data=Table(["step", *ways], [[n, *of] for n, of in enumerate(curves.T.tolist())]),
        figures=[_figure(list(ways), curves)],
        claims=["D3.5"],
        failures=failures,
    )


def _figure(names: list[str], curves: np.ndarray) -> Figure:
    """The three losses, and how far the first two are from the third."""

    def paint(panels: Any) -> None:
        left, right = panels
        every = max(1, curves.shape[1] // 8)
        for n, name in enumerate(names):
            left.plot(curves[n], label=name, markevery=(n * every // 3, every), **series(n))
        left.set_yscale("log")
        left.set(xlabel="steps taken", ylabel="loss (summed squared error)")
        legend_below(left)
        for n in (0, 1):
            gap = np.maximum.accumulate(np.abs(curves[n] - curves[2]) / curves[2])
            right.plot(np.maximum(gap, 1e-9), label=f"{names[n]}", markevery=(n * every // 2, every), **series(n))
        right.set_yscale("log")
        right.set(xlabel="steps taken", ylabel="distance from NumPy's loss,\nlargest so far (share of it)")
        legend_below(right)

    alt = (
        f"Left: the loss of all three ways on a logarithmic axis, one curve upon the other, from {curves[0, 0]:,.0f} "
        f"to {curves[0, -1]:.3g}. Right: how far the two float32 ways stray from NumPy's float64, at most "
        f"{np.max(np.abs(curves[:2] - curves[2]) / curves[2]):.1e} of the loss."
    )
    return Figure("The network of 20 lines, trained three ways", alt, paint, options={"size": (9, 4), "columns": 2})


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, Settings, run))
