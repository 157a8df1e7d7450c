"""Mixed precision, checkpointing, offloading and smaller batches: what do they save in memory, and what do they cost?

Each takes the same gradient of a GPT-2 (layers scanned, derived rules). Kept: the bytes that lie between forward and
backward, counted from shapes. Temporaries: XLA's plan of the whole step. FLOPs: of the whole step. Gradient's error:
‖g − g₀‖/‖g₀‖ against float32 with everything kept. Whether offloading moves anything, the run finds out: where the host
reads a device's array at the very address where it lies, device and host have one memory.

    python experiments/less_memory.py
"""

import dataclasses
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _common import Figure, Result, Table, interleaved, main, temporaries
from _model import ModelSettings
from jax.ad_checkpoint import checkpoint_name

from refgrad import cost
from refgrad.models import gpt2
from refgrad.models.gpt2_costs import BLOCK_RESIDUALS
from refgrad.report.figures import BLUE, GREEN, HATCHES, INK, ORANGE, VERMILLION, legend_below
from refgrad.report.text import standard_library_ids
from refgrad.symbols import evaluate

WAYS = ("everything kept", "mixed precision", "checkpointing", "offloading", "smaller batches")
ALLOWED = {"mixed precision": 0.05}  # of the gradient's error: bfloat16 has 8 bits, and the rest are float32's
ALLOWED_FLOAT32 = 1e-5


@dataclasses.dataclass(frozen=True)
class Settings(ModelSettings):
    """The model, and the parts of its batch for smaller batches."""

    parts: int

    def __post_init__(self) -> None:
        if self.config.vocab_size < 256:
            raise ValueError(f"vocab_size is {self.vocab_size}, but the text needs 256 at least: its tokens are bytes")
        if self.parts < 1 or self.batch % self.parts:
            raise ValueError(f"parts is {self.parts}, which does not divide batch = {self.batch}")
        if self.rounds < 1:
            raise ValueError(f"rounds is {self.rounds}, but must be at least 1")


@dataclasses.dataclass(frozen=True)
class Measured:
    """One way: bytes kept, those of them in float32, of XLA's temporaries; FLOPs, seconds, the gradient's error."""

    kept: int
    wide: int
    temporaries: int
    flops: int
    seconds: float
    error: float


def loss(way: str, config: gpt2.Config, params: gpt2.Params, tokens: Any, targets: Any) -> jax.Array:
    """The model's mean loss, its memory handled in one of the ways."""
    if way == "mixed precision":
        params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)

    def step(x, layer):
        return gpt2.block(layer, checkpoint_name(x, "stream") if way == "offloading" else x, config), None

    if way == "checkpointing":
        step = jax.checkpoint(step)
    if way == "offloading":
        step = jax.checkpoint(step, policy=to_host())
    x, _ = jax.lax.scan(step, gpt2.embed(params, tokens, config), params["h"])
    return gpt2.head_loss(params, x, targets, config)


def to_host() -> Any:
    """The policy of `jax.checkpoint` that sends each block's input to the host and recomputes the rest."""
    return jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=["stream"],
        offload_src="device",
        offload_dst="pinned_host",
    )


def step(way: str, settings: Settings) -> Callable[..., Any]:
    """(params, tokens, targets) → (loss, gradients), the batch in parts for smaller batches."""
    whole = jax.value_and_grad(partial(loss, way, settings.config))
    if way != "smaller batches":
        return whole

    def in_parts(params, tokens, targets):
        def add(total, part):
            return jax.tree.map(jnp.add, total, whole(params, *part)), None

        parts = [x.reshape(settings.parts, -1, settings.sequence) for x in (tokens, targets)]
        zeros = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
        total, _ = jax.lax.scan(add, zeros, parts)
        return jax.tree.map(lambda x: x / settings.parts, total)

    return in_parts


def one_memory() -> bool:
    """Return True if the host reads an array of the default device at the address where it lies."""
    x = jnp.arange(1024.0)
    return x.unsafe_buffer_pointer() == np.asarray(x).ctypes.data


def measure(settings: Settings) -> dict[str, Measured]:
    """Every way on the same parameters and text."""
    params = jax.jit(lambda key: gpt2.stack(gpt2.init(key, settings.config)))(jax.random.key(0))
    ids = [jnp.asarray(x) for x in standard_library_ids(settings.batch, settings.sequence)]
    steps = {way: jax.jit(step(way, settings)).lower(params, *ids).compile() for way in WAYS}
    gradients = {way: compiled(params, *ids)[1] for way, compiled in steps.items()}
    seconds = interleaved({way: partial(compiled, params, *ids) for way, compiled in steps.items()}, settings.rounds)
    found = {}
    for way, compiled in steps.items():
        rows = settings.batch // (settings.parts if way == "smaller batches" else 1)
        kept = cost.residuals(partial(loss, way, settings.config), params, *(x[:rows] for x in ids))
        found[way] = Measured(
            kept.bytes,
            sum(one.bytes for one in kept.kept if one.dtype == "float32"),
            temporaries(compiled),
            cost.count(step(way, settings), params, *ids).flops,
            seconds[way],
            apart(gradients[way], gradients[WAYS[0]]),
        )
    return found


def apart(tree: Any, other: Any) -> float:
    """‖tree − other‖ / ‖other‖ over all leaves."""
    a, b = (np.concatenate([np.ravel(np.asarray(x, np.float64)) for x in jax.tree.leaves(t)]) for t in (tree, other))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def run(settings: Settings) -> Result:
    """Measure each way, and state its savings."""
    found = measure(settings)
    failures = [
        f"{way}: the gradient's error is {one.error:.1e}, but may be {ALLOWED.get(way, ALLOWED_FLOAT32):.0e}"
        for way, one in found.items()
        if not one.error <= ALLOWED.get(way, ALLOWED_FLOAT32)
    ]
    base = found[WAYS[0]]
    answer = [
        f"{way.capitalize()}: {one.kept / base.kept:.2f} of the bytes kept, {one.temporaries / base.temporaries:.2f} "
        f"of the temporaries, {one.flops / base.flops:.2f} of the FLOPs, {one.seconds / base.seconds:.2f} of the time."
        for way, one in list(found.items())[1:]
    ]
    mixed = found["mixed precision"]
    answer.append(
        f"Of what mixed precision keeps, {mixed.wide / mixed.kept:.0%} is still float32, in which the rules "
        "accumulate: x̂, the probabilities, the loss's own."
    )
    dims, same = settings.config.dims(settings.batch, settings.sequence), one_memory()
    moved = settings.n_layer * evaluate(BLOCK_RESIDUALS["remat"], dims)
    here = "not measurable here: the host reads the device's arrays where they lie, so that nothing moves"
    answer.append(
        f"Offloading is {here if same else 'measured'}. It sends checkpointing's {moved:,} bytes of block inputs away."
    )
    rows = [[way, *dataclasses.astuple(one)] for way, one in found.items()]
    for row in rows:
        row[5] *= 1e3
    header = ["way", "kept (bytes)", "float32 (bytes)", "temporaries (bytes)", "FLOPs", "time (ms)", "gradient's error"]
    return Result(answer, Table(header, rows), [figure(found, same)], ("D1.9", "D1.10", "D1.11"), failures=failures)


def figure(found: dict[str, Measured], same: bool) -> Figure:
    """Each way's bytes, FLOPs and time over those of float32 with everything kept."""
    base = found[WAYS[0]]
    shares = {
        "kept": [one.kept / base.kept for one in found.values()],
        "temporaries": [one.temporaries / base.temporaries for one in found.values()],
        "FLOPs": [one.flops / base.flops for one in found.values()],
        "time": [one.seconds / base.seconds for one in found.values()],
    }
    names = ["offloading\n(not measurable here)" if way == "offloading" and same else way for way in found][1:]

    def paint(axes) -> None:
        for n, ((what, of), color) in enumerate(zip(shares.items(), (BLUE, ORANGE, GREEN, VERMILLION), strict=True)):
            places = [row + 0.2 * (n - 1.5) for row in range(len(names))]
            axes.barh(places, of[1:], height=0.19, color=color, label=what, hatch=HATCHES[n], linewidth=0)
            for place, share in zip(places, of[1:], strict=True):
                beside = 1.0 if 0.9 < share < 1 else share  # the line at 1 would cross the number
                axes.annotate(f" {share:.2f}", (beside, place), va="center", fontsize=9)
        axes.axvline(1, color=INK, linewidth=1)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set(xlabel="over float32 with everything kept (ratio)", ylabel="way to less memory")
        axes.set_xlim(0, 1.12 * max(max(of) for of in shares.values()))
        legend_below(axes)

    alt = "Bars by way, each over float32 with everything kept. " + " ".join(
        f"{way}: " + ", ".join(f"{what} {of[n]:.2f}" for what, of in shares.items()) + "."
        for n, way in enumerate(found)
        if n
    )
    return Figure("Four ways to less memory", alt, paint, options={"size": (8, 5)})


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, Settings, run))
