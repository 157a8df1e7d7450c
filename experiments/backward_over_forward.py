"""Does GPT-2's backward pass take twice its forward pass's FLOPs, and does the ratio depend on s/h or on the size?

Each product of matrices has two of the same cost in the backward pass, so that products alone give 2 exactly (D0.7).
All else, counted with it, moves the ratio: exact integers from shapes alone, of the whole model at sequences of
s = h·2^k tokens, checked against the sum of the operations' own polynomials, and of each operation by itself.

    python experiments/backward_over_forward.py
"""

import dataclasses
import sys
from functools import partial

import jax
import jax.numpy as jnp
from _classes import CLASSES, COLORS
from _common import Figure, Result, Table, main, track

from refgrad import cost
from refgrad.models import gpt2, gpt2_costs
from refgrad.report.figures import INK, legend_below, series
from refgrad.symbols import evaluate

SIZES = {"tiny": gpt2.Config(), **gpt2.SIZES}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes of GPT-2, logarithms to base 2 of s/h, sequences in a batch, and what "about" means as a share."""

    sizes: list[str]
    powers: list[int]
    batch: int
    about: float

    def __post_init__(self) -> None:
        for size in self.sizes:
            if size not in SIZES:
                raise ValueError(f"sizes holds {size!r}, but each must be one of {', '.join(SIZES)}")
        if self.batch < 1:
            raise ValueError(f"batch is {self.batch}, but must be at least 1")


@dataclasses.dataclass(frozen=True)
class Point:
    """One size at one length: FLOPs of both passes, counted."""

    size: str
    s: int
    h: int
    forward: int
    backward: int
    derived: tuple[int, int]

    @property
    def ratio(self) -> float:
        """Backward over forward."""
        return self.backward / self.forward


def count(size: str, batch: int, s: int) -> Point:
    """Count both passes of the loss, and evaluate the sums of the operations' polynomials."""
    config = dataclasses.replace(SIZES[size], n_positions=s)
    ids = jax.ShapeDtypeStruct((batch, s), jnp.int32)
    loss, params = partial(gpt2.loss, config=config, scan=True), gpt2.shapes(config)
    flops = cost.count(loss, params, ids, ids).flops, cost.count_backward(loss, params, ids, ids).flops
    dims = config.dims(batch, s)
    derived = evaluate(gpt2_costs.forward().flops, dims), evaluate(gpt2_costs.backward().flops, dims)
    return Point(size, s, config.n_embd, *flops, derived)


def by_operation(size: str) -> dict[str, float]:
    """Operation → backward over forward FLOPs of all its uses in one sequence of 1024 tokens."""
    dims = SIZES[size].dims(1, 1024)
    found: dict[str, list[int]] = {}
    for use in (*gpt2_costs.LAYER, *gpt2_costs.ENDS):
        if CLASSES[use.op] != "lookups":
            both = found.setdefault(use.op, [0, 0])
            both[0] += evaluate(use.cost(lambda row: row.forward.flops), dims)
            both[1] += evaluate(use.cost(lambda row: row.backward.flops), dims)
    return {op: backward / forward for op, (forward, backward) in found.items()}


def run(settings: Settings) -> Result:
    """Count everywhere, then say where 2× holds."""
    work = [(size, max(1, int(SIZES[size].n_embd * 2.0**k))) for size in settings.sizes for k in settings.powers]
    points = [count(size, settings.batch, s) for size, s in track(list(dict.fromkeys(work)), "counting")]
    failures = [
        f"{p.size}, s = {p.s}: {p.forward:,} and {p.backward:,} counted, {p.derived[0]:,} and {p.derived[1]:,} derived"
        for p in points
        if (p.forward, p.backward) != p.derived
    ]
    operations = by_operation(settings.sizes[-1])
    far = [p for p in points if abs(p.ratio / 2 - 1) > settings.about]
    low, high = min(points, key=lambda p: p.ratio), max(points, key=lambda p: p.ratio)
    answer = [
        f"Between {low.ratio:.4f} ({low.size}, s/h = {low.s / low.h:g}) and {high.ratio:.4f} ({high.size}, "
        f"s/h = {high.s / high.h:g}): {len(points) - len(far)} of {len(points)} lie within {settings.about:.0%} of 2.",
        f"Farther off: {farther(settings, far)}.",
        f"Forward and backward are {1 + low.ratio:.2f} to {1 + high.ratio:.2f} forward passes in sum, never 2 (D1.20).",
        f"By operation, at {settings.sizes[-1]}: "
        + ", ".join(f"{op} {ratio:.2f}" for op, ratio in operations.items())
        + ".",
    ]
    rows = [[p.size, p.s, p.s / p.h, p.forward, p.backward, p.ratio] for p in points]
    header = ["size", "s", "s/h", "forward (FLOPs)", "backward (FLOPs)", "backward/forward"]
    return Result(
        answer,
        Table(header, rows),
        [figure(settings, points, operations)],
        ("D2.1", "D0.7", "D1.19", "D1.20"),
        failures=failures,
    )


def farther(settings: Settings, far: list[Point]) -> str:
    """The sequence lengths by size; "none" for none."""
    lengths = {size: ", ".join(f"{p.s:,}" for p in far if p.size == size) for size in settings.sizes}
    return "; ".join(f"{size} at s = {of}" for size, of in lengths.items() if of) or "none"


def figure(settings: Settings, points: list[Point], operations: dict[str, float]) -> Figure:
    """Left the whole model against s/h, right each operation."""

    def paint(panels) -> None:
        model, single = panels
        for n, size in enumerate(settings.sizes):
            mine = [p for p in points if p.size == size]
            model.plot([p.s / p.h for p in mine], [p.ratio for p in mine], label=size, **series(n))
        model.axhspan(2 * (1 - settings.about), 2 * (1 + settings.about), color=INK, alpha=0.08, linewidth=0)
        model.axhline(2, color=INK, linewidth=1)
        model.set_xscale("log", base=2)
        model.set(xlabel="s/h (tokens per unit of width)", ylabel="backward / forward (FLOPs)")
        model.set_title(f"whole model (band: within {settings.about:.0%} of 2)")
        legend_below(model)
        names = list(operations)[::-1]
        single.barh(names, [operations[name] for name in names], color=[COLORS[CLASSES[name]] for name in names])
        for name in names:
            single.annotate(f" {operations[name]:.2f}", (operations[name], name), va="center", fontsize=9)
        single.axvline(2, color=INK, linewidth=1)
        single.set(xlabel="backward / forward (FLOPs)", ylabel="operation", xlim=(0, 1.15 * max(operations.values())))
        single.set_title(f"each operation, at {settings.sizes[-1]}")
        single.grid(axis="y", visible=False)
        handles = [single.barh([names[0]], [0], color=color, label=kind) for kind, color in list(COLORS.items())[:3]]
        legend_below(single, handles=handles)

    ends = [(size, [p.ratio for p in points if p.size == size]) for size in settings.sizes]
    alt = (
        "Left: backward over forward FLOPs against s/h from "
        f"{2.0 ** min(settings.powers):g} to {2.0 ** max(settings.powers):g}, one line a size: "
        + "; ".join(f"{size} from {of[0]:.4f} to {of[-1]:.4f}" for size, of in ends)
        + ". Right, bars by operation: "
        + ", ".join(f"{op} {ratio:.2f}" for op, ratio in operations.items())
        + ". The products of matrices stand at 2."
    )
    return Figure("Backward over forward FLOPs of GPT-2", alt, paint, options={"size": (10, 4.2), "columns": 2})


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, Settings, run))
