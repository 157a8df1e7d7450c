"""Can a line part a cluster from the ring around it, in (x, y), in (r, θ), and with a hidden layer?

D3's red and blue points: one class lies in a cluster at the origin, the other in a ring around it. The same linear
classifier (hinge loss, trained by the derived rules) sees the points as (x, y) and as (r, θ); a network with one hidden
layer sees them as (x, y). That no line at all parts them in (x, y) is shown apart from training: by a point of the
cluster that lies within a triangle of points of the ring.

    python experiments/ring.py
"""

import dataclasses
import itertools
import sys
from typing import Any

import numpy as np
from _common import Figure, Result, Table, main, track
from _planes import accuracy, fit, paint

from refgrad.report.figures import legend_below


@dataclasses.dataclass(frozen=True)
class Settings:
    """Points of each class, radii (of the cluster's spread, of the ring), hidden units, steps and rate of Adam."""

    points: int
    spread: float
    radius: float
    hidden: int
    steps: int
    rate: float

    def __post_init__(self) -> None:
        for name in ("points", "hidden", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 1")
        if not 0 < 3 * self.spread < self.radius:
            raise ValueError(f"spread is {self.spread}, but a ring of radius {self.radius} needs 0 < 3 spread < radius")


def points(settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) of a cluster (label 0) and of a ring (label 1)."""
    rng, n = np.random.default_rng(0), settings.points
    angle = 2 * np.pi * (np.arange(n) + rng.uniform(size=n)) / n
    around = settings.radius + 0.1 * settings.radius * rng.uniform(-1, 1, n)
    near = np.minimum(settings.spread * rng.rayleigh(size=n), 2.5 * settings.spread)
    turn = rng.uniform(0, 2 * np.pi, n)
    x = np.concatenate([np.stack([near * np.cos(turn), near * np.sin(turn)], 1)])
    ring = np.stack([around * np.cos(angle), around * np.sin(angle)], 1)
    return np.concatenate([x, ring]), np.repeat([0, 1], n)


def polar(x: np.ndarray) -> np.ndarray:
    """(r, θ) of points (x, y), θ in (−π, π]."""
    return np.stack([np.hypot(*x.T), np.arctan2(x[:, 1], x[:, 0])], axis=1)


def inside(x: np.ndarray, labels: np.ndarray) -> bool:
    """Return True if a point of class 0 lies in a triangle of points of class 1: then no line parts the classes."""
    corners = x[labels == 1][:: max(1, int(np.sum(labels == 1)) // 12)]

    def cross(a: np.ndarray, b: np.ndarray, p: np.ndarray) -> float:
        return float((b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0]))

    for a, b, c in itertools.combinations(corners, 3):
        signs = [cross(a, b, x[0]), cross(b, c, x[0]), cross(c, a, x[0])]
        if min(signs) > 0 or max(signs) < 0:
            return True
    return False


def run(settings: Settings) -> Result:
    """Train the three and compare."""
    x, labels = points(settings)
    cases = {
        "line in (x, y)": (x, ()),
        "line in (r, θ)": (polar(x), ()),
        f"{settings.hidden} hidden units in (x, y)": (x, (settings.hidden,)),
    }
    fits = {
        name: fit(seen, labels, hidden, 0.0, settings.steps, settings.rate)
        for name, (seen, hidden) in track(list(cases.items()), "training")
    }
    shares = {name: accuracy(fits[name][0], seen, labels) for name, (seen, _) in cases.items()}
    line, turned, network = shares.values()
    none = inside(x, labels)
    failures = [] if none else ["no triangle of the ring's points holds a point of the cluster"]
    failures += [f"{name} tells {share:.1%} apart" for name, share in list(shares.items())[1:] if share < 1]
    if line == 1:
        failures.append("a line tells all points apart in (x, y)")
    return Result(
        answer=[
            "No line parts the classes in (x, y): a point of the cluster lies in a triangle of the ring's; the trained "
            f"line gets {line:.1%} right.",
            f"In (r, θ) a line gets {turned:.1%}, and {settings.hidden} hidden units in (x, y) get {network:.1%}.",
        ],
        table=Table(
            ["classifier", "last loss", "right (%)"],
            [[name, fits[name][1][-1], 100 * share] for name, share in shares.items()],
        ),
        figures=[_figure(cases, fits, labels, shares)],
        claims=["D3.2"],
        failures=failures,
    )


def _figure(cases: dict[str, Any], fits: dict[str, Any], labels: np.ndarray, shares: dict[str, float]) -> Figure:
    """Three panels: what each classifier sees, and where it draws the line."""

    def draw(panels: Any) -> None:
        for axes, (name, (seen, _)) in zip(panels, cases.items(), strict=True):
            low, high = (tuple(f(seen, axis=0) + 0.08 * sign * np.ptp(seen, axis=0)) for f, sign in _CORNERS)
            paint(axes, fits[name][0], seen, labels, low, high)
            axes.set_title(f"{name}: {shares[name]:.0%} right")
            is_polar = "r, θ" in name
            axes.set(xlabel="r (units of x)" if is_polar else "x", ylabel="θ (radians)" if is_polar else "y")
        legend_below(panels[1])

    alt = "Three panels of the same points with the learned regions: " + "; ".join(
        f"{name} gets {share:.1%} right" for name, share in shares.items()
    )
    return Figure(
        "A cluster inside a ring, and who can part them", alt, draw, options={"size": (11, 3.8), "columns": 3}
    )


_CORNERS = ((np.min, -1), (np.max, 1))


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, Settings, run))
