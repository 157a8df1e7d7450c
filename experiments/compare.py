"""Five changes that people make: what does each cost, and why?

Each pair of programs is compared equation by equation, or instruction by instruction once it is compiled: FLOPs,
transcendentals, bytes moved (of a compiled program, after fusion), and bytes kept from forward to backward.

1. The backward pass of GPT-2 by fused rules instead of the derived ones.
2. The backward pass by autodiff, and the same with `jax.checkpoint` around each block.
3. One compiled program in bfloat16 with XLA's excess precision switched off.
4. The gradient of one function under two versions of JAX, from two saved counts.
5. One line changed: the variance as the mean of squares less the square of the mean.

    python experiments/compare.py
"""

import dataclasses
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from _common import Figure, Result, Table, main, track

from refgrad import cost
from refgrad.cost.comparison.items import FIGURES
from refgrad.models import gpt2
from refgrad.report.figures import BLUE, GREEN, HATCHES, INK, ORANGE, legend_below

SHOWN = {"flops": "FLOPs", "bytes": "bytes moved", "residuals": "bytes kept"}
ROUNDED = {"xla_allow_excess_precision": False}


@dataclasses.dataclass(frozen=True)
class Settings:
    """GPT-2's size and input, the width of the small functions, and the folder with the saved counts."""

    size: str
    batch: int
    sequence: int
    width: int
    saved: str

    def __post_init__(self) -> None:
        if self.size not in (*gpt2.SIZES, "tiny"):
            raise ValueError(f"size is {self.size!r}, but must be one of tiny, {', '.join(gpt2.SIZES)}")
        if not 1 <= self.sequence <= self.config.n_positions:
            raise ValueError(f"sequence is {self.sequence}, but must be from 1 to {self.config.n_positions}")
        if min(self.batch, self.width) < 1:
            raise ValueError(f"batch and width are {self.batch} and {self.width}, but must be at least 1")

    @property
    def config(self) -> gpt2.Config:
        """The model's config."""
        return gpt2.SIZES[self.size] if self.size in gpt2.SIZES else gpt2.Config()

    @property
    def rows(self) -> jax.ShapeDtypeStruct:
        """The small functions' argument."""
        return jax.ShapeDtypeStruct((self.width, self.width), jnp.float32)


def normalised(x: jax.Array) -> jax.Array:
    """Each row less its mean, over its standard deviation."""
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
    return jnp.sum(centred * jax.lax.rsqrt(variance + 1e-5))


def normalised_in_one_pass(x: jax.Array) -> jax.Array:
    """The same, with both means taken of x itself."""
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(x * x, axis=-1, keepdims=True) - jnp.mean(x, axis=-1, keepdims=True) ** 2
    return jnp.sum(centred * jax.lax.rsqrt(variance + 1e-5))


def in_half(x: jax.Array) -> jax.Array:
    """Two functions in bfloat16, which the compiler computes in float32 and may round or not in between."""
    return jnp.sum(jnp.sin(jnp.cos(x.astype(jnp.bfloat16))).astype(jnp.float32))


def model(settings: Settings, rules: str, remat: bool = False) -> cost.Program:
    """GPT-2's backward pass, layers scanned."""
    f, *args = gpt2.abstract_loss(
        settings.config, settings.batch, settings.sequence, rules=rules, remat=remat, scan=True
    )
    return cost.program(f, *args, backward=True)


def activated(x: jax.Array) -> jax.Array:
    """The sum of a gelu."""
    return jnp.sum(jax.nn.gelu(x))


def saved(settings: Settings, version: str) -> cost.Program:
    """The gradient of a gelu as it was counted under a version of JAX: `save` under that version writes it."""
    return cost.load(_place(settings, version))


def save(settings: Settings) -> None:
    """Count the gradient of a gelu under this version of JAX, for `saved`."""
    program = cost.program(jax.grad(activated), jax.ShapeDtypeStruct((1024, 1024), jnp.float32))
    program.save(_place(settings, ".".join(jax.__version__.split(".")[:2])))


def _place(settings: Settings, version: str) -> Path:
    return Path(__file__).parent / settings.saved / f"gelu_gradient_jax_{version}.json"


PAIRS: dict[str, tuple[Callable[[Settings], cost.Program], Callable[[Settings], cost.Program]]] = {
    "derived → fused rules": (partial(model, rules="derived"), partial(model, rules="fused")),
    "autodiff → jax.checkpoint": (partial(model, rules="autodiff"), partial(model, rules="autodiff", remat=True)),
    "excess precision → none": (
        lambda settings: cost.program(in_half, settings.rows, stage="compiled"),
        lambda settings: cost.program(in_half, settings.rows, stage="compiled", flags=ROUNDED),
    ),
    "JAX 0.10 → JAX 0.12": (partial(saved, version="0.10"), partial(saved, version="0.12")),
    "one line changed": (
        lambda settings: cost.program(normalised, settings.rows),
        lambda settings: cost.program(normalised_in_one_pass, settings.rows),
    ),
}


def compared(settings: Settings) -> dict[str, cost.Comparison]:
    """Every comparison, by name."""
    found = {}
    for name in track(list(PAIRS), "comparing"):
        before, after = PAIRS[name]
        found[name] = cost.compare(before(settings), after(settings))
    return found


def run(settings: Settings) -> Result:
    """Compare, and say what each change costs and why."""
    found = compared(settings)
    rows, answer = [], []
    for name, one in found.items():
        before = one.figures[0]
        for cause, change in sorted(one.by_cause.items(), key=lambda item: -max(map(abs, item[1]))):
            rows.append([name, cause, *change])
        rows.append([name, "in all", *one.change])
        shares = (
            f"{b:+,} {SHOWN[figure]}" + (f" ({b / a:+.1%})" if a else "")
            for figure, a, b in zip(FIGURES, before, one.change, strict=True)
            if figure in SHOWN and b
        )
        largest = max(one.by_cause, key=lambda cause: max(map(abs, one.by_cause[cause])), default="nothing")
        answer.append(f"{name}: {', '.join(shares) or 'no change'}; mostly {largest}.")
    failures = [
        f"{name}: unexplained {one.unexplained}"
        for name, one in found.items()
        if any(one.unexplained) and one.after.stage != "compiled"
    ]
    header = ["change", "cause", *(f"{figure} (difference)" for figure in FIGURES)]
    return Result(answer, Table(header, rows), [figure(found)], failures=failures)


def figure(found: dict[str, cost.Comparison]) -> Figure:
    """Each change's figures over those before it."""
    shares = {
        label: [one.figures[1][n] / one.figures[0][n] if one.figures[0][n] else 1.0 for one in found.values()]
        for n, label in ((FIGURES.index(name), label) for name, label in SHOWN.items())
    }

    def paint(axes) -> None:
        for n, ((label, ratios), color) in enumerate(zip(shares.items(), (BLUE, ORANGE, GREEN), strict=True)):
            places = [row + 0.26 * (n - 1) for row in range(len(found))]
            axes.barh(places, ratios, height=0.24, color=color, label=label, hatch=HATCHES[n], linewidth=0)
            for place, ratio in zip(places, ratios, strict=True):
                axes.annotate(f" {ratio:.2f}", (max(ratio, 1.0), place), va="center", fontsize=9)
        axes.axvline(1, color=INK, linewidth=1)
        axes.set_yticks(range(len(found)), list(found))
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set(xlabel="after over before (ratio)", ylabel="change")
        axes.set_xlim(0, 1.15 * max(map(max, shares.values())))
        legend_below(axes)

    alt = "Bars by change, after over before. " + " ".join(
        f"{name}: " + ", ".join(f"{label} {ratios[n]:.2f}" for label, ratios in shares.items()) + "."
        for n, name in enumerate(found)
    )
    return Figure("What five changes cost", alt, paint, options={"size": (8, 5)})


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, Settings, run))
