"""Do more hidden units, and a stronger L2 penalty, change a network's decision boundary?

D3 shows networks of one hidden layer with 3, 6 and 20 units on points of two classes, and one network under penalties
of several strengths, in pictures that are lost. Here two interleaved, noisy half-moons are learned by the derived rules
(tanh, hinge loss, L2), and each boundary is drawn and measured: its length within the frame, and the share of points
right among those learned from and among fresh ones.

    python experiments/decision_boundaries.py
"""

import dataclasses
import sys
from typing import Any

import numpy as np
from _common import Figure, Result, Table, main, track
from _planes import accuracy, edge_length, fit, paint

from refgrad.report.figures import legend_below

LOW, HIGH = (-2.2, -1.8), (3.2, 2.3)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Points of both classes (learned from; fresh), noise, units, penalties, steps and rate of Adam.

    `strengths` are drawn for the largest network, `units` without a penalty.
    """

    points: int
    fresh: int
    noise: float
    units: list[int]
    strengths: list[float]
    steps: int
    rate: float

    def __post_init__(self) -> None:
        if min(self.points, self.fresh, self.steps, *self.units) < 1:
            raise ValueError("points, fresh, steps and each of units must be at least 1")
        if min(self.strengths) < 0:
            raise ValueError(f"strengths is {self.strengths}, but a penalty is at least 0")


def moons(n: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """n points on two interleaved half-circles, normal noise added, and their classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    angle = np.pi * rng.uniform(size=n)
    x = np.where(labels == 0, np.cos(angle), 1 - np.cos(angle))
    y = np.where(labels == 0, np.sin(angle), 0.5 - np.sin(angle))
    return np.stack([x, y], axis=1) + noise * rng.standard_normal((n, 2)), labels


@dataclasses.dataclass(frozen=True)
class Fit:
    """One trained network."""

    units: int
    strength: float
    params: Any
    length: float
    learned: float
    fresh: float


def run(settings: Settings) -> Result:
    """Train every network, measure its boundary, and say what grows and what shrinks."""
    x, labels = moons(settings.points, settings.noise, 0)
    other, others = moons(settings.fresh, settings.noise, 1)
    largest = max(settings.units)
    cases = [(units, 0.0) for units in settings.units] + [(largest, strength) for strength in settings.strengths]
    fits = []
    for units, strength in track(cases, "training"):
        params, _ = fit(x, labels, (units,), strength, settings.steps, settings.rate)
        right = accuracy(params, x, labels), accuracy(params, other, others)
        fits.append(Fit(units, strength, params, edge_length(params, LOW, HIGH), *right))
    sizes, penalised = fits[: len(settings.units)], fits[len(settings.units) :]
    free = next(one for one in sizes if one.units == largest)
    failures = []
    if not sizes[-1].learned >= sizes[0].learned:
        failures.append(
            f"{sizes[-1].units} units learn {sizes[-1].learned:.1%} of the points, fewer than {sizes[0].units}"
        )
    if not penalised[-1].length < free.length:
        failures.append(f"a penalty of {penalised[-1].strength:g} leaves the boundary {penalised[-1].length:.1f} long")
    return Result(
        answer=[
            "Without a penalty: "
            + "; ".join(f"{f.units} units, boundary {f.length:.1f} long, {f.learned:.1%} learned" for f in sizes)
            + ".",
            f"{largest} units under a penalty: "
            + "; ".join(f"λ = {f.strength:g}, {f.length:.1f} long, {f.fresh:.1%} of fresh points" for f in penalised)
            + f"; without, {free.length:.1f} and {free.fresh:.1%}.",
        ],
        table=Table(
            ["units", "L2 strength", "boundary's length", "learned from (% right)", "fresh (% right)"],
            [[f.units, f.strength, f.length, 100 * f.learned, 100 * f.fresh] for f in fits],
        ),
        figures=[
            _figure("units", "Capacity: hidden units without a penalty", sizes, x, labels),
            _figure("strength", f"L2 penalties on {largest} hidden units", penalised, x, labels),
        ],
        claims=["D3.10", "D3.9"],
        failures=failures,
    )


def _figure(of: str, title: str, fits: list[Fit], x: np.ndarray, labels: np.ndarray) -> Figure:
    """One panel a network: the points, the regions and the boundary."""

    def name(one: Fit) -> str:
        return f"{one.units} units" if of == "units" else f"λ = {one.strength:g}"

    def draw(panels: Any) -> None:
        for axes, one in zip(np.ravel(panels), fits, strict=True):
            paint(axes, one.params, x, labels, LOW, HIGH)
            axes.set_title(f"{name(one)}: {one.learned:.0%} right, fresh {one.fresh:.0%}")
            axes.set(xlabel="x", ylabel="y")
        legend_below(np.ravel(panels)[len(fits) // 2])

    alt = "Two noisy half-moons and the boundary learned between them. " + "; ".join(
        f"{name(one)}: boundary {one.length:.1f} units long, {one.learned:.0%} of the points right, {one.fresh:.0%} of "
        "fresh ones"
        for one in fits
    )
    options = {"size": (3.7 * len(fits), 3.4), "columns": len(fits)}
    return Figure(title, alt, draw, suffix="" if of == "units" else of, options=options)


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, Settings, run))
