"""Does it pay to checkpoint every layer, every k-th layer, or by operation?

Gradient of a stack of GPT-2 blocks (derived rules, layers scanned). Kept: bytes between forward and backward, counted
from shapes. Live: those, and what the recomputed group of k blocks holds for a moment, derived: (L/k)·A + k·B, with A a
block's input and B what one block keeps; it is least at k = √(L·A/B), the rule of √n. Temporaries: XLA's plan. FLOPs of
the whole step over those without a checkpoint. By operation: the outputs of products stay and the rest is recomputed.

    python experiments/checkpointing.py
"""

import dataclasses
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from _common import Figure, Result, Table, interleaved, main, temporaries, track

from refgrad import cost, ops
from refgrad.models import gpt2
from refgrad.models.gpt2_costs import BLOCK_RESIDUALS
from refgrad.report.figures import INK, legend_below, series
from refgrad.symbols import evaluate

SEED = jax.random.key(0)
POLICIES = {
    "products kept": jax.checkpoint_policies.dots_saveable,
    "weights' products kept": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The stack's sizes, how many blocks stand between two checkpoints, and rounds of timing."""

    batch: int
    sequence: int
    n_layer: int
    n_head: int
    n_embd: int
    groups: list[int]
    rounds: int

    @property
    def config(self) -> gpt2.Config:
        """The blocks' config."""
        return gpt2.Config(self.n_layer, self.n_head, self.n_embd, self.sequence, 1)

    @property
    def dims(self) -> dict[str, int]:
        """The documents' symbols."""
        return self.config.dims(self.batch, self.sequence)

    def __post_init__(self) -> None:
        for k in self.groups:
            if k < 1 or self.n_layer % k:
                raise ValueError(f"groups holds {k}, which does not divide n_layer = {self.n_layer}")
        if self.rounds < 1:
            raise ValueError(f"rounds is {self.rounds}, but must be at least 1")


@dataclasses.dataclass(frozen=True)
class Way:
    """A placement of checkpoints: the blocks between two of them (None: no checkpoint), and what one saves."""

    name: str
    every: int | None
    policy: Any = None


@dataclasses.dataclass(frozen=True)
class Measured:
    """One way: bytes kept (counted), live (derived), XLA's temporaries; FLOPs and seconds of a step."""

    kept: int
    live: int
    temporaries: int
    flops: int
    seconds: float


def loss(way: Way, config: gpt2.Config, layers: Any, x: jax.Array) -> jax.Array:
    """The stack's mean square, of layers (groups, blocks in a group, …) and its input (batch, sequence, n_embd)."""

    def one(x, layer):
        return gpt2.block(layer, x, config), None

    def group(x, some):
        return jax.lax.scan(one, x, some)

    if way.every is not None:
        group = jax.checkpoint(group, policy=way.policy)
    return ops.mean_square(jax.lax.scan(group, x, layers)[0])


def parameters(settings: Settings) -> Any:
    """Blocks drawn by the model's own init, stacked: (n_layer, …)."""
    one = dataclasses.replace(settings.config, n_layer=1)
    return jax.jit(jax.vmap(lambda key: gpt2.init(key, one)["h"][0]))(jax.random.split(SEED, settings.n_layer))


def grouped(layers: Any, way: Way) -> Any:
    """The stack in groups: (groups, blocks in a group, …)."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, way.every or leaf.shape[0], *leaf.shape[1:]), layers)


def measure(settings: Settings) -> dict[Way, Measured]:
    """Every way on the same layers and input."""
    ways = [Way("no checkpoint", None)]
    ways += [Way("every layer" if k == 1 else f"every {k} layers", k) for k in settings.groups]
    ways += [Way(name, 1, policy) for name, policy in POLICIES.items()]
    layers = parameters(settings)
    x = jax.random.normal(SEED, (settings.batch, settings.sequence, settings.n_embd))
    arguments = {way: (grouped(layers, way), x) for way in ways}
    steps = {way: jax.value_and_grad(partial(loss, way, settings.config), (0, 1)) for way in ways}
    compiled = {way: jax.jit(steps[way]).lower(*arguments[way]).compile() for way in track(ways, "compiling")}
    calls: dict[str, Callable[[], Any]] = {way.name: partial(step, *arguments[way]) for way, step in compiled.items()}
    seconds = interleaved(calls, settings.rounds)
    found = {}
    for way in ways:
        kept = cost.residuals(partial(loss, way, settings.config), *arguments[way]).bytes
        flops = cost.count(steps[way], *arguments[way]).flops
        found[way] = Measured(kept, live(way, kept, settings), temporaries(compiled[way]), flops, seconds[way.name])
    return found


def live(way: Way, kept: int, settings: Settings) -> int:
    """Bytes at the backward pass's fullest moment: those kept, and those that a group under way makes again."""
    every = evaluate(BLOCK_RESIDUALS["rules"], settings.dims)
    if way.every is None:
        return kept
    own = kept // settings.n_layer if way.policy is not None else 0  # what the block under way has kept already
    return kept + way.every * every - own


def best(settings: Settings) -> float:
    """k at which (L/k)·A + k·B is least, as a real number."""
    block_input, block = (evaluate(BLOCK_RESIDUALS[way], settings.dims) for way in ("remat", "rules"))
    return (settings.n_layer * block_input / block) ** 0.5


def run(settings: Settings) -> Result:
    """Measure every way; the derived bytes kept must be the counted ones."""
    found = measure(settings)
    base = next(iter(found.values()))
    groups = {way.every: one for way, one in found.items() if way.every and way.policy is None}
    block_input = evaluate(BLOCK_RESIDUALS["remat"], settings.dims)
    least = min(groups, key=lambda k: groups[k].live)
    planned = min(groups, key=lambda k: groups[k].temporaries)
    answer = [
        f"Least live bytes, derived: k = √(L·A/B) = {best(settings):.2f}; of the groups tried {least} "
        f"({groups[least].live / base.live:.3f} of those without a checkpoint), by XLA's plan {planned}.",
        *(
            f"{way.name.capitalize()}: {one.kept / base.kept:.4f} of the bytes kept, {one.flops / base.flops:.3f} of "
            f"the FLOPs, {one.seconds / base.seconds:.2f} of the time."
            for way, one in list(found.items())[1:]
        ),
    ]
    rows = [
        [way.name, one.kept, one.live, one.temporaries, one.flops, one.flops / base.flops, 1e3 * one.seconds]
        for way, one in found.items()
    ]
    header = [
        "way",
        "kept (bytes)",
        "live, derived (bytes)",
        "temporaries (bytes)",
        "FLOPs",
        "FLOPs (ratio)",
        "time (ms)",
    ]
    return Result(
        answer,
        Table(header, rows),
        [figure(settings, found, groups)],
        ("D1.11", "D1.10"),
        failures=unlike(settings, groups, block_input),
    )


def unlike(settings: Settings, groups: dict[int, Measured], block_input: int) -> list[str]:
    """Groups whose counted bytes are not (L/k)·A and what the loss itself keeps of the stack's output."""
    return [
        f"every {k} layers: {one.kept:,} bytes kept, but derived {(settings.n_layer // k + 1) * block_input:,}"
        for k, one in groups.items()
        if one.kept != (settings.n_layer // k + 1) * block_input
    ]


def figure(settings: Settings, found: dict[Way, Measured], groups: dict[int, Measured]) -> Figure:
    """Left FLOPs against bytes kept, a point a way; right the bytes against k."""
    base, mega = next(iter(found.values())), 1e6

    def paint(panels) -> None:
        left, right = panels
        labels = {}
        for way, one in found.items():
            place = (one.kept / mega, one.flops / base.flops)
            kind = 2 if way.policy is not None else 1 if way.every is None else 0
            (labels[kind],) = left.plot(*place, **{**series(kind), "linestyle": "none"})
            text, offset, align = (str(way.every), (0, 7), "center") if kind == 0 else (way.name, (-9, -3), "right")
            left.annotate(text, place, textcoords="offset points", xytext=offset, ha=align, fontsize=9)
        names = ("every k-th layer (k above)", "none", "by operation")
        legend_below(left, handles=[labels[kind] for kind in range(3)], labels=names)
        left.set_xscale("log")
        left.set(xlabel="kept from forward to backward (MB)", ylabel="FLOPs over those without a checkpoint")
        left.margins(x=0.1, y=0.12)
        ks = list(groups)
        lines = (("live, derived", "live"), ("XLA's temporaries", "temporaries"), ("kept", "kept"))
        for n, (label, field) in enumerate(lines):
            right.plot(ks, [getattr(groups[k], field) / mega for k in ks], label=label, **series(n))
        right.axvline(best(settings), color=INK, linewidth=1)
        right.annotate(
            f" √(L·A/B) = {best(settings):.2f}", (best(settings), 1), xycoords=("data", "axes fraction"), va="top"
        )
        right.set_xscale("log")
        right.set_xticks(ks, [str(k) for k in ks])
        right.minorticks_off()
        right.set_ylim(bottom=0)
        right.set(xlabel="k, blocks between two checkpoints", ylabel="memory (MB)")
        legend_below(right)

    alt = (
        "Left: a point a way, bytes kept against FLOPs; "
        + "; ".join(f"{w.name} {one.kept / mega:.2f} MB, {one.flops / base.flops:.2f}" for w, one in found.items())
        + ". Right: bytes against k, live ones lowest near the marked "
        + f"k = {best(settings):.2f}, kept ones falling as 1/k."
    )
    return Figure("Checkpointing: bytes kept against FLOPs", alt, paint, options={"size": (10, 4.6), "columns": 2})


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, Settings, run))
