"""When do the gradients of a recurrent network vanish or explode over time, and does W_h's spectral radius tell?

D1's network, its loss at the end alone: ∂L/∂h_t is ∂L/∂h_s times a product over the later times of
diag(tanh′(z)) W_hᵀ. W_h is ρ times an orthogonal matrix, so that each factor stretches by ρ·min tanh′ at least and by
ρ·max tanh′ ≤ ρ at most, and by ρ times the root mean square of tanh′ where the gradient has no favourite direction.
Measured is the norm by the derived backpropagation through time; each step is held against JAX's own derivative of
one step, the bounds and the prediction.

    python experiments/rnn_gradients.py
"""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
from _common import Figure, Result, Table, main, track

from refgrad.models import rnn
from refgrad.report.figures import COLORS, DASHES, INK, MARKERS, legend_below, series


@dataclasses.dataclass(frozen=True)
class Settings:
    """Radii of W_h, amplitudes of the inputs, and sizes."""

    radii: list[float]
    drawn: list[float]
    amplitudes: list[float]
    steps: int
    hidden: int
    inputs: int
    outputs: int
    batch: int
    close: float
    seed: int

    def __post_init__(self) -> None:
        for name in ("hidden", "inputs", "outputs", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 1")
        if self.steps < 2:
            raise ValueError(f"steps is {self.steps}, but a gradient goes back over 2 at least")
        for name in ("radii", "amplitudes"):
            for value in getattr(self, name):
                if not 0 < value < float("inf"):
                    raise ValueError(f"{name} holds {value}, but each must be above 0 and finite")
        if len(self.drawn) > len(COLORS) or not set(self.drawn) <= set(self.radii):
            raise ValueError(f"drawn is {self.drawn}, but must be among radii, and {len(COLORS)} at most")
        if len(self.amplitudes) != 2:
            raise ValueError(f"amplitudes is {self.amplitudes}, but must be two: nearly linear, and saturating")


@dataclasses.dataclass(frozen=True)
class Run:
    """One radius at one amplitude: norms at t = 1 … s, and of each step back from s the factors that they took."""

    amplitude: float
    radius: float
    norms: np.ndarray  # (s,)
    least: np.ndarray  # (s − 1,): of the step from t + 1 to t, like those that follow
    predicted: np.ndarray
    most: np.ndarray
    error: float  # of the derived steps against autodiff of one step

    @property
    def factors(self) -> np.ndarray:
        """‖∂L/∂h_t‖ / ‖∂L/∂h_{t+1}‖, (s − 1,)."""
        return self.norms[:-1] / self.norms[1:]

    @property
    def bounded(self) -> bool:
        """True if every step lies within its bounds."""
        return bool(np.all((self.least <= self.factors * (1 + 1e-9)) & (self.factors <= self.most * (1 + 1e-9))))


def mean(factors: np.ndarray) -> float:
    """The geometric mean: the factor of one step."""
    return float(np.exp(np.mean(np.log(factors))))


@jax.jit
def measure(params: rnn.Params, x: jax.Array, targets: jax.Array) -> dict[str, jax.Array]:
    """Norms by the derived rule, by autodiff of each step at the same states, and what bounds and predicts them."""
    h = rnn.states(params, x)

    def step(before: jax.Array, x_t: jax.Array) -> jax.Array:
        return jnp.tanh(x_t @ params["W_x"] + before @ params["W_h"] + params["b_h"][None])

    def back(g: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        (g,) = jax.vjp(lambda before: step(before, at[1]), at[0])[1](g)
        return g, jnp.linalg.norm(g)

    end = lambda last: jnp.mean(jnp.square(last @ params["W_y"] + params["b_y"][None] - targets))  # noqa: E731
    g_s = jax.grad(end)(h[:, -1])
    later = jnp.swapaxes(h, 0, 1)[:-1], jnp.swapaxes(x, 0, 1)[1:]
    _, norms = jax.lax.scan(back, g_s, later, reverse=True)
    slope = 1 - jnp.square(h[:, 1:])
    return {
        "derived": rnn.gradient_norms(params, x, targets),
        "autodiff": jnp.append(norms, jnp.linalg.norm(g_s)),
        "least": jnp.min(slope, (0, 2)),
        "rms": jnp.sqrt(jnp.mean(slope * slope, (0, 2))),
        "most": jnp.max(slope, (0, 2)),
    }


def measured(settings: Settings) -> list[Run]:
    """Every radius at every amplitude, on the same numbers, in float64."""
    keys = jax.random.split(jax.random.key(settings.seed), 3)
    params = rnn.init(keys[0], settings.inputs, settings.hidden, settings.outputs, 1.0)
    q, _ = np.linalg.qr(np.asarray(params["W_h"], np.float64))  # orthogonal to float64's last bits
    params = {**jax.tree.map(lambda leaf: leaf.astype(np.float64), params), "W_h": q}
    x = jax.random.normal(keys[1], (settings.batch, settings.steps, settings.inputs), np.float64)
    targets = jax.random.normal(keys[2], (settings.batch, settings.outputs), np.float64)
    runs = []
    for amplitude, radius in track([(a, r) for a in settings.amplitudes for r in settings.radii], "radii"):
        found = jax.device_get(measure({**params, "W_h": radius * q}, amplitude * x, targets))
        error = float(np.max(np.abs(found["derived"] / found["autodiff"] - 1)))
        least, predicted, most = (radius * found[name] for name in ("least", "rms", "most"))
        runs.append(Run(amplitude, radius, found["derived"], least, predicted, most, error))
    return runs


def run(settings: Settings) -> Result:
    """Measure, hold against bounds and prediction, and say where the gradient vanishes."""
    with jax.enable_x64(True):
        runs = measured(settings)
    failures = []
    for one in runs:
        where = f"radius {one.radius:g}, inputs of {one.amplitude:g}"
        if one.error > 1e-12:
            failures.append(f"{where}: the derived gradient is {one.error:.1e} from autodiff's")
        if not one.bounded:
            failures.append(f"{where}: a step is outside its bounds")
        if abs(mean(one.predicted) / mean(one.factors) - 1) > settings.close:
            failures.append(f"{where}: {mean(one.predicted):.3f} a step predicted, {mean(one.factors):.3f} measured")
    quiet, loud = ([one for one in runs if one.amplitude == amplitude] for amplitude in settings.amplitudes)
    farthest = max(abs(mean(one.predicted) / mean(one.factors) - 1) for one in runs)
    answer = [
        *(said(settings, some) for some in (quiet, loud)),
        "The radius alone tells for the worst case only: below 1 the gradient must vanish, since tanh′ ≤ 1; above 1 it "
        "explodes where ρ times the root mean square of tanh′ along the way is above 1. That product is within "
        f"{farthest:.1%} of every growth per step measured.",
    ]
    header = ["inputs", "radius", "a step", "predicted", "bounds of a step", "in all", "from autodiff"]
    rows = [
        [
            one.amplitude,
            one.radius,
            mean(one.factors),
            mean(one.predicted),
            f"{mean(one.least):.3g} … {mean(one.most):.3g}",
            float(one.norms[0] / one.norms[-1]),
            one.error,
        ]
        for one in runs
    ]
    figure = Figure(
        "Gradients of a recurrent network over time", described(quiet, loud), lambda axes: paint(settings, runs, axes),
        options={"size": (10, 4.4), "columns": 2},
    )  # fmt: skip
    return Result(answer, Table(header, rows), [figure], ("D1.12", "D1.21"), data=data(runs), failures=failures)


def said(settings: Settings, runs: list[Run]) -> str:
    """Say at which radii the gradient vanishes and at which it explodes, at one amplitude."""
    shrinking = [one.radius for one in runs if mean(one.factors) < 1]
    growing = [one.radius for one in runs if mean(one.factors) >= 1]
    low, high = (key(runs, key=lambda one: mean(one.factors)) for key in (min, max))
    grows = f"it grows from {growing[0]:g} on" if growing else "it grows at none of them"
    return (
        f"Inputs of {runs[0].amplitude:g}: the gradient shrinks up to radius {max(shrinking, default=0):g}, {grows}. "
        f"Over {settings.steps - 1} steps back it changes by {low.norms[0] / low.norms[-1]:.1e} at {low.radius:g} "
        f"and by {high.norms[0] / high.norms[-1]:.1e} at {high.radius:g}."
    )


def data(runs: list[Run]) -> Table:
    """A line a step back."""
    header = ["inputs", "radius", "t", "norm of dL/dh_t", "factor of the step", "least", "predicted", "most"]
    rows = [
        [one.amplitude, one.radius, t + 1, float(one.norms[t]), *(float(f[t]) for f in columns)]
        for one in runs
        for columns in [(one.factors, one.least, one.predicted, one.most)]
        for t in range(len(one.factors))
    ]
    return Table(header, rows)


def described(quiet: list[Run], loud: list[Run]) -> str:
    """Describe the figure for those who cannot see it."""
    growth = "; ".join(
        f"at inputs of {some[0].amplitude:g} from {mean(some[0].factors):.3f} at radius {some[0].radius:g} to "
        f"{mean(some[-1].factors):.3f} at {some[-1].radius:g}"
        for some in (quiet, loud)
    )
    return (
        f"Left: the norm of the gradient at each step back in time, inputs of {quiet[0].amplitude:g}, on a logarithmic "
        f"axis: the lines fall below radius 1 and rise above it. Right: growth per step against the radius, "
        f"{growth}; measured points lie on the predicted lines, below the diagonal that is the bound."
    )


def paint(settings: Settings, runs: list[Run], axes) -> None:
    """Left norms over time at the first amplitude, right growth per step against the radius."""
    over_time, growth = axes
    quiet = [one for one in runs if one.amplitude == settings.amplitudes[0] and one.radius in settings.drawn]
    back = np.arange(settings.steps)
    every = max(1, settings.steps // 10)
    for n, one in enumerate(quiet):
        over_time.semilogy(
            back, one.norms[::-1] / one.norms[-1], label=f"ρ = {one.radius:g}", markevery=every, **series(n)
        )
    over_time.set(xlabel="steps back in time, $s − t$ (steps)", ylabel=r"$\|∂L/∂h_t\|\;/\;\|∂L/∂h_s\|$ (a ratio)")
    over_time.set_title(f"inputs of {settings.amplitudes[0]:g}")
    legend_below(over_time, ncols=3)
    radii = [one.radius for one in runs if one.amplitude == settings.amplitudes[0]]
    by_amplitude = [[one for one in runs if one.amplitude == amplitude] for amplitude in settings.amplitudes]
    for n, mine in enumerate(by_amplitude):
        means = [mean(one.predicted) for one in mine]
        label = f"predicted, inputs of {mine[0].amplitude:g}"
        growth.plot(radii, means, color=COLORS[n], linestyle=DASHES[n], label=label)
    growth.plot(radii, radii, color=INK, linewidth=1, label="bound, ρ")
    for n, mine in enumerate(by_amplitude):
        means = [mean(one.factors) for one in mine]
        growth.plot(radii, means, MARKERS[n], color=COLORS[n], label=f"measured, inputs of {mine[0].amplitude:g}")
    growth.axhline(1, color=INK, linewidth=1, linestyle=":")
    growth.annotate("explodes", (radii[0], 1), (2, 3), textcoords="offset points", fontsize=9)
    growth.annotate("vanishes", (radii[0], 1), (2, -3), textcoords="offset points", va="top", fontsize=9)
    growth.set(xlabel="spectral radius ρ of $W_h$", ylabel="growth of the gradient per step (a ratio)")
    growth.set_title("growth per step")
    legend_below(growth, ncols=2)


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, Settings, run))
