"""D1 on memory: what training holds (D1.9), four ways to hold less (D1.10), and checkpointing's price (D1.11)."""

import dataclasses
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp

from refgrad import cost
from refgrad.claims._ledger import Case
from refgrad.claims._oracle import at
from refgrad.claims._rows import claims
from refgrad.models import gpt2
from refgrad.ops import operations

OPS = operations("derived")
# "Dominates" is more than parameters, gradients and Adam's two moments together: 16 bytes a parameter in float32.
BOUNDS = {"dominated": 16}
SEQUENCE, MANY = 1024, 8  # tokens of a sequence; sequences of a large batch
SMALL = (
    gpt2.Config(n_layer=2, n_head=4, n_embd=32, n_positions=64, vocab_size=256),
    gpt2.Config(n_layer=3, n_head=2, n_embd=48, n_positions=32, vocab_size=100),
    gpt2.Config(n_layer=4, n_head=3, n_embd=24, n_positions=48, vocab_size=60),
)


def square_bytes() -> Iterator[Case]:
    """Bytes that x² keeps from forward to backward."""
    for shape in ((5,), (3, 4), (2, 7, 6)):
        x = jax.ShapeDtypeStruct(shape, jnp.float32)
        kept = cost.residuals(lambda x: OPS.mul(x, x), x)
        yield Case("×".join(map(str, shape)), {"n": x.size}, kept.bytes + kept.argument_bytes)


def activations() -> Iterator[Case]:
    """Bytes kept from forward to backward beyond the parameters, by the rules, at one sequence and at many."""
    for name in ("124M", "1.5B"):
        for batch in (1, MANY):
            f, params, *ids = gpt2.abstract_loss(gpt2.SIZES[name], batch, SEQUENCE, stacked=True, scan=True)
            size = sum(leaf.size for leaf in jax.tree.leaves(params))
            values = {"kept": cost.residuals(f, params, *ids).bytes, "parameters": size, "b": batch, "many": MANY}
            yield Case(f"GPT-2 {name}, {batch} × {SEQUENCE} tokens", {**values, **BOUNDS})


@cache
def ways() -> tuple[Case, ...]:
    """Small GPT-2s: bytes kept and FLOPs of the backward pass, plainly and in three of D1's ways."""
    found = []
    for config in SMALL:
        program = partial(gpt2.abstract_loss, config, sequence=config.n_positions, stacked=True, scan=True)
        plain = program(batch=4)
        f, params, *tokens = plain
        low = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), params)
        programs = {
            "plain": plain,
            "bf16": (f, low, *tokens),
            "remat": program(batch=4, remat=True),
            "half": program(batch=2),
        }
        values: dict[str, Any] = {name: cost.residuals(*each).bytes for name, each in programs.items()}
        counts = {name: cost.count_backward(*programs[name]) for name in ("plain", "remat")}
        values |= {f"flops_{name}": count.flops for name, count in counts.items()}
        values["recomputed"] = counts["remat"].recomputed.flops
        names = ("n_layer", "n_embd", "n_positions")
        where = at({name: value for name, value in dataclasses.asdict(config).items() if name in names})
        found.append(Case(where, values))
    return tuple(found)


def offloaded() -> Iterator[Case]:
    """Bytes that leave the device: derived for one with memory of its own, and on this machine."""
    for case in ways():
        kept = case.values["plain"]
        yield Case(f"{case.at}, a device with memory of its own (derived)", {"apart": 1, "kept": kept, "leaves": kept})
    device = jax.devices()[0]
    apart = int(device.platform != "cpu")
    note = "" if apart else ", whose memory is the host's: not measurable here"
    kept = ways()[0].values["plain"]
    yield Case(f"{device.device_kind}{note}", {"apart": apart, "kept": kept, "leaves": apart * kept})


def inference() -> Iterator[Case]:
    """Residuals of D1's network that inference can drop: its hidden layer, before and after σ."""
    for B, D, H, O in ((2, 3, 4, 1), (5, 7, 3, 2), (8, 2, 6, 5)):
        shapes = ((B, D), (H, D), (H,), (O, H), (O,))
        arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]

        def network(x: Any, W1: Any, b1: Any, W2: Any, b2: Any) -> Any:
            return OPS.dense(OPS.sigmoid(OPS.dense(x, W1, b1)), W2, b2)

        yield Case(at({"B": B, "D": D, "H": H, "O": O}), {"B": B, "H": H}, cost.residuals(network, *arrays).bytes)


CLAIMS = claims(__name__)
