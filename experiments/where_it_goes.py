"""Do GPT-2's FLOPs, bytes and time go to contractions, normalisations or element-wise operations?

FLOPs and bytes of a forward and backward pass are counted by scope from shapes alone (bytes: what each equation reads
and writes, nothing fused). Time is measured operation by operation, forward and backward compiled together, at the
shapes that it has in the model, and multiplied by its uses; the compiled whole stands beside the sum.

    python experiments/where_it_goes.py
"""

import dataclasses
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from _classes import CLASSES, COLORS
from _common import Figure, Result, Table, interleaved, main
from _model import ModelSettings

from refgrad import cost
from refgrad.models import gpt2, gpt2_costs
from refgrad.ops import TABLE
from refgrad.report.figures import BLUE, INK, SKY, VERMILLION, legend_below
from refgrad.symbols import evaluate

BETWEEN = "between operations"  # fan-in, and layout
Shares = Mapping[str, Mapping[str, float]]  # of what → where → share


@dataclasses.dataclass(frozen=True)
class Settings(ModelSettings):
    """The model, and what "dominates" means."""

    dominates: float


def operation(scope: str) -> str:
    """The operation in a scope's path, such as "h/attn/linear"."""
    return next((part for part in scope.split("/") if part in CLASSES), BETWEEN)


def counted(settings: Settings) -> dict[str, cost.Count]:
    """Operation → its part of the loss's forward and backward pass."""
    ids = jax.ShapeDtypeStruct((settings.batch, settings.sequence), jnp.int32)
    loss, params = partial(gpt2.loss, config=settings.config), gpt2.shapes(settings.config)
    both = cost.count(loss, params, ids, ids) + cost.count_backward(loss, params, ids, ids)
    return both.partition(lambda site: operation(site.scope))


def unlike(settings: Settings, parts: dict[str, cost.Count]) -> list[str]:
    """Operations whose counted FLOPs are not those of their own polynomials over all their uses."""
    dims = settings.config.dims(settings.batch, settings.sequence)
    derived = {BETWEEN: evaluate(sum(gpt2_costs.fan_in(tied=True).values()), dims)}
    for uses, times in ((gpt2_costs.LAYER, settings.n_layer), (gpt2_costs.ENDS, 1)):
        for use in uses:
            flops = times * evaluate(use.cost(lambda row: row.forward.flops + row.backward.flops), dims)
            derived[use.op] = derived.get(use.op, 0) + flops
    return [
        f"{op}: {parts[op].flops:,} FLOPs counted, but {flops:,} derived"
        for op, flops in derived.items()
        if parts[op].flops != flops
    ]


def both_passes(f: Callable[..., Any], arrays: tuple[Any, ...]) -> Callable[[], Any]:
    """A call of f's compiled value and pullback, of a cotangent of ones."""

    @jax.jit
    def both(arrays, cotangent):
        moving = [n for n, x in enumerate(arrays) if jnp.issubdtype(x.dtype, jnp.inexact)]

        def g(*some):
            given = dict(zip(moving, some, strict=True))
            return f(*(given.get(n, x) for n, x in enumerate(arrays)))

        out, pull = jax.vjp(g, *(arrays[n] for n in moving))
        return out, pull(cotangent)

    cotangent = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), jax.eval_shape(f, *arrays))
    return partial(both, arrays, cotangent)


def timed(settings: Settings) -> tuple[dict[str, float], float]:
    """(operation → seconds over all its uses, seconds of the whole pass compiled at once)."""
    dims = settings.config.dims(settings.batch, settings.sequence)
    work: dict[str, Callable[[], Any]] = {}
    uses: list[tuple[str, str, int]] = []  # operation, which of its calls is timed, how often it stands in the model
    for where, repeats in ((gpt2_costs.LAYER, settings.n_layer), (gpt2_costs.ENDS, 1)):
        for use in where:
            widths = {symbol.name: evaluate(width, dims) for symbol, width in use.widths.items()}
            row, sizes, call = TABLE[use.op], dims | widths, f"{use.op} {widths}"
            if call not in work:
                work[call] = both_passes(row.bound(sizes), row.sample(0, sizes, jnp.float32))
            uses.append((use.op, call, repeats))
    stream = jnp.ones((settings.batch, settings.sequence, settings.n_embd))
    work[BETWEEN] = partial(jax.jit(jnp.add), stream, stream)
    uses.append((BETWEEN, BETWEEN, 2 * settings.n_layer))
    params = gpt2.init(jax.random.key(0), settings.config)
    ids = TABLE["token_embedding"].sample(0, dims, jnp.float32)[1]
    step = jax.jit(jax.value_and_grad(partial(gpt2.loss, config=settings.config)))
    seconds = interleaved({**work, "whole": partial(step, params, ids, ids)}, settings.rounds)
    by_operation = {op: sum(n * seconds[call] for other, call, n in uses if other == op) for op, _, _ in uses}
    return by_operation, seconds["whole"]


def run(settings: Settings) -> Result:
    """Count and time, as shares by operation and by class."""
    parts = counted(settings)
    seconds, whole = timed(settings)
    found: Shares = {
        "FLOPs": {op: part.flops for op, part in parts.items()},
        "bytes": {op: part.bytes for op, part in parts.items()},
        "time": seconds,
    }
    order = [*CLASSES, BETWEEN]
    shares = {what: {op: of[op] / sum(of.values()) for op in order} for what, of in found.items()}
    classes = {
        what: {kind: sum(of[op] for op in order if class_of(op) == kind) for kind in COLORS}
        for what, of in shares.items()
    }
    rows = [
        [
            op,
            class_of(op),
            parts[op].flops,
            parts[op].bytes,
            1e3 * seconds[op],
            *(100 * shares[what][op] for what in found),
        ]
        for op in order
    ]
    header = ["operation", "class", "FLOPs", "bytes (unfused)", "time (ms)", "FLOPs (%)", "bytes (%)", "time (%)"]
    most = {what: max(of, key=of.__getitem__) for what, of in classes.items()}
    answer = [
        *(
            f"{what}: {kind} come first with {classes[what][kind]:.1%}"
            + (" and dominate" if classes[what][kind] > settings.dominates else ", but do not dominate")
            + f" (more than {settings.dominates:.0%})."
            for what, kind in most.items()
        ),
        f"The operations take {1e3 * sum(seconds.values()):.0f} ms one by one; compiled at once, {1e3 * whole:.0f} ms.",
    ]
    return Result(answer, Table(header, rows), [figure(shares, classes)], ("D2.24",), failures=unlike(settings, parts))


def class_of(op: str) -> str:
    """An operation's class; the additions between operations are element-wise."""
    return CLASSES.get(op, "element-wise")


def figure(shares: Shares, classes: Shares) -> Figure:
    """Left the shares by class, stacked; right by operation, side by side."""
    colors = {"FLOPs": VERMILLION, "bytes": SKY, "time": INK}

    def paint(panels) -> None:
        left, right = panels
        start = dict.fromkeys(classes, 0.0)
        for kind, color in COLORS.items():
            width = [100 * of[kind] for of in classes.values()]
            ink = "#ffffff" if color == BLUE else "#111111"  # the better contrast of the two
            left.barh(list(classes), width, left=list(start.values()), color=color, label=kind)
            for what, share in zip(classes, width, strict=True):
                if share > 8:
                    place = (start[what] + share / 2, what)
                    left.annotate(f"{share:.1f}", place, ha="center", va="center", color=ink)
                start[what] += share
        left.invert_yaxis()
        left.grid(axis="y", visible=False)
        left.set(xlabel="share (%)", ylabel="of what", xlim=(0, 100))
        legend_below(left, ncols=2)
        order = list(shares["FLOPs"])
        for n, (what, of) in enumerate(shares.items()):
            places = [row + 0.27 * (n - 1) for row in range(len(order))]
            right.barh(places, [100 * of[op] for op in order], height=0.25, color=colors[what], label=what)
        right.set_yticks(range(len(order)), order)
        right.invert_yaxis()
        right.grid(axis="y", visible=False)
        right.set(xlabel="share (%)", ylabel="operation")
        legend_below(right)

    alt = "Left, stacked bars of shares by class. " + " ".join(
        f"{what}: " + ", ".join(f"{kind} {share:.0%}" for kind, share in of.items()) + "."
        for what, of in classes.items()
    )
    first = {what: max(of, key=of.__getitem__) for what, of in shares.items()}
    alt += " Right, the same by operation; the longest bars: " + ", ".join(
        f"{what} {op} {shares[what][op]:.0%}" for what, op in first.items()
    )
    return Figure("Where GPT-2's FLOPs, bytes and time go", alt + ".", paint, options={"size": (10, 5), "columns": 2})


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, Settings, run))
