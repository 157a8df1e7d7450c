"""A gradient by finite differences: what does it cost beside one backward pass, as parameters grow?

One parameter at a time: (L(θ + εe_i) − L(θ))/ε takes a forward pass for each of P parameters and one more; the rule
takes one forward and one backward pass at any P. The two cost the same where P forward passes cost as much as one
backward pass, at P = backward/forward. FLOPs are counted exactly, times measured, of D1's network
o = w₂·tanh(W₁x + b₁) + b₂ with a squared error.

    python experiments/finite_differences.py
"""

import dataclasses
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _common import Figure, Result, Table, interleaved, main, track
from jax.flatten_util import ravel_pytree

from refgrad import cost, ops
from refgrad.report.figures import INK, legend_below, series

ALLOWED = 0.05  # relative error of a gradient by differences in float32


@dataclasses.dataclass(frozen=True)
class Settings:
    """Widths n (inputs and hidden units), examples in the batch, the step ε, rounds of timing."""

    widths: list[int]
    examples: int
    step: float
    rounds: int

    def __post_init__(self) -> None:
        if min(*self.widths, self.examples) < 1 or self.widths != sorted(set(self.widths)):
            raise ValueError(f"widths is {self.widths}, examples {self.examples}: rising widths and examples from 1")
        if self.step <= 0:
            raise ValueError(f"step is {self.step}, but must be above 0")


@dataclasses.dataclass(frozen=True)
class Point:
    """One width: parameters P; FLOPs of the forward pass, of the gradient by rule and by differences; their seconds."""

    parameters: int
    forward: int
    rule: int
    differences: int
    rule_s: float
    differences_s: float
    error: float

    @property
    def tie(self) -> float:
        """P at which differences would cost what the rule does: backward over forward."""
        return (self.rule - self.forward) / self.forward


def network(n: int, settings: Settings) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
    """(the parameters as one vector, the mean squared error as a function of it)."""
    rng = np.random.default_rng(n)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.standard_normal(shape) / shape[0] ** 0.5, jnp.float32)

    inputs, target = normal(settings.examples, n), normal(settings.examples, 1)
    start, tree = ravel_pytree({"w1": normal(n, n), "b1": normal(n), "w2": normal(n, 1), "b2": normal(1)})

    def loss(flat: jax.Array) -> jax.Array:
        p = tree(flat)
        hidden = jnp.tanh(ops.linear(inputs, p["w1"], p["b1"]))
        return ops.mean_square(ops.linear(hidden, p["w2"], p["b2"]) - target)

    return start, loss


def differences(loss: Callable[[jax.Array], jax.Array], step: float, at: jax.Array) -> jax.Array:
    """The gradient by forward differences, a parameter at a time."""
    here = loss(at)
    return jax.lax.map(lambda i: (loss(at.at[i].add(step)) - here) / step, jnp.arange(at.size))


def measure(n: int, settings: Settings) -> Point:
    """Both gradients of one width: FLOPs, seconds, and how far apart they are."""
    start, loss = network(n, settings)
    ways: dict[str, Callable[[jax.Array], Any]] = {
        "rule": jax.value_and_grad(loss),
        "differences": partial(differences, loss, settings.step),
    }
    flops = {name: cost.count(way, start).flops for name, way in ways.items()}
    compiled = {name: partial(jax.jit(way), start) for name, way in ways.items()}
    seconds = interleaved(compiled, settings.rounds)
    rule, slow = compiled["rule"]()[1], compiled["differences"]()
    error = float(jnp.linalg.norm(slow - rule) / jnp.linalg.norm(rule))
    forward = cost.count(loss, start).flops
    return Point(
        start.size, forward, flops["rule"], flops["differences"], seconds["rule"], seconds["differences"], error
    )


def run(settings: Settings) -> Result:
    """Grow the network, count and time both gradients."""
    points = [measure(n, settings) for n in track(settings.widths, "widths")]
    failures = [
        f"P = {p.parameters}: the differences are off by {p.error:.1e} of the rule's gradient, but may by {ALLOWED:.0e}"
        for p in points
        if not p.error <= ALLOWED
    ]
    last, ties = points[-1], [p.tie for p in points]
    slower = next((p.parameters for p in points if p.differences_s > p.rule_s), None)
    answer = [
        f"One gradient by rule costs {min(p.rule / p.forward for p in points):.2f} to "
        f"{max(p.rule / p.forward for p in points):.2f} forward passes, whatever the number of parameters.",
        f"The two tie at P = {min(ties):.2f} to {max(ties):.2f}: differences cost more from {int(max(ties)) + 1} "
        f"parameters on; in time they are slower "
        + (f"from {slower} of those tried." if slower is not None else "at none of those tried."),
        f"At {last.parameters:,} parameters they take {last.differences / last.rule:,.0f} times the FLOPs and "
        f"{last.differences_s / last.rule_s:,.0f} times the time, for a gradient with an error of {last.error:.1e}.",
    ]
    header = ["parameters", "forward (FLOPs)", "by rule (FLOPs)", "by differences (FLOPs)"]
    header += ["by rule (ms)", "by differences (ms)", "tie at P", "error"]
    rows = [
        [p.parameters, p.forward, p.rule, p.differences, 1e3 * p.rule_s, 1e3 * p.differences_s, p.tie, p.error]
        for p in points
    ]
    return Result(answer, Table(header, rows), [figure(points)], ("D1.2",), failures=failures)


def figure(points: list[Point]) -> Figure:
    """Left FLOPs in forward passes with the tie marked, right times."""
    count, low, high = [p.parameters for p in points], min(p.tie for p in points), max(p.tie for p in points)

    def paint(panels) -> None:
        left, right = panels
        left.loglog(count, [p.differences / p.forward for p in points], label="differences", **series(0))
        left.loglog(count, [p.rule / p.forward for p in points], label="rule", **series(1))
        first = points[0]
        for n, cost_here in enumerate(((2, first.differences / first.forward), (first.rule / first.forward,) * 2)):
            left.plot((1, first.parameters), cost_here, color=series(n)["color"], linewidth=0.8)  # P + 1, and the same
        left.axvspan(low, high, color=INK, alpha=0.25, linewidth=0)
        left.annotate("  tie", (high, 1), xycoords=("data", "axes fraction"), va="top")
        left.set_xlim(left=min(1, 0.8 * low))
        left.set(xlabel="parameters P", ylabel="cost of a gradient (forward passes, by FLOPs)")
        right.loglog(count, [1e3 * p.differences_s for p in points], label="differences", **series(0))
        right.loglog(count, [1e3 * p.rule_s for p in points], label="rule", **series(1))
        right.set(xlabel="parameters P", ylabel="time of a gradient (ms)")
        for panel in panels:
            legend_below(panel)

    first, last, most = points[0], points[-1], max(p.rule / p.forward for p in points)
    alt = (
        "Left, in forward passes: differences rise in proportion to P, from "
        f"{first.differences / first.forward:.1f} to {last.differences / last.forward:,.0f}; the rule takes at most "
        f"{most:.1f}; a band marks the tie at P = {low:.2f} to {high:.2f}. Right, times: differences rise to "
        f"{1e3 * last.differences_s:.0f} ms, the rule's to {1e3 * last.rule_s:.2f} ms."
    )
    return Figure("Finite differences against one backward pass", alt, paint, options={"size": (10, 4.2), "columns": 2})


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, Settings, run))
