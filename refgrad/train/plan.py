"""What a training step needs of memory, before anything is allocated: derived from shapes, and as XLA plans it."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from refgrad import cost
from refgrad._text import Table, table
from refgrad.models import gpt2
from refgrad.train.optimiser import State
from refgrad.train.walk import EMBEDDINGS, Pieces, cast


@dataclasses.dataclass(frozen=True)
class Plan:
    """Bytes that a step needs, and the FLOPs that clipping makes it compute again."""

    state: int
    """Parameters and the transformation's state, in place throughout."""
    kept: int
    """From the forward pass to the backward pass, beside the parameters."""
    gradients: int
    """Alive at once: all of them, or those of the embeddings (a tied table's are made first and completed last) and of
    one layer."""
    temporaries: int
    """XLA's plan for everything beside the state, after fusion and reuse."""
    recomputed: int
    """FLOPs of the backward pass that clipping runs twice; 0 without it."""

    def __str__(self) -> str:
        rows = [
            ["state: parameters and optimiser", f"{self.state:,}"],
            ["kept from forward to backward, derived", f"{self.kept:,}"],
            ["gradients alive at once, derived", f"{self.gradients:,}"],
            ["XLA's temporaries, compiled", f"{self.temporaries:,}"],
        ]
        again = f"\nclipping by the global norm computes {self.recomputed:,} FLOPs again" if self.recomputed else ""
        return table(["memory of a step", "bytes"], rows) + again


def nbytes(tree: Any) -> int:
    """Bytes of a tree's leaves, which may be abstract."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def plan_of(compiled: Any, config: gpt2.Config, state: State, batch: int, sequence: int, **choices: Any) -> Plan:
    """The plan of a step that `make_step(config, …, **choices)` made, for a state whose leaves may be abstract.

    Raises RuntimeError where the backend has no memory analysis.
    """
    plan = compiled.memory_analysis()
    if plan is None:
        raise RuntimeError(f"the {jax.default_backend()} backend has no memory analysis")
    kept, gradients, recomputed = _derived(config, state, batch, sequence, choices)
    return Plan(nbytes(state), kept, gradients, plan.temp_size_in_bytes, recomputed)


def device_plan(compiled: Any, state: State) -> Table:
    """What one device of a mesh needs: its share of the state, and XLA's temporaries, which need not be known."""
    share = sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(state))
    plan = compiled.memory_analysis()
    rows = [
        ["state: its share of parameters and optimiser", f"{share:,}"],
        ["XLA's temporaries, compiled", "not given" if plan is None else f"{plan.temp_size_in_bytes:,}"],
    ]
    return Table(["memory of a step, each device", "bytes"], rows)


def _derived(
    config: gpt2.Config, state: State, batch: int, sequence: int, choices: dict[str, Any]
) -> tuple[int, int, int]:
    """Bytes kept, bytes of gradients alive at once, FLOPs computed again."""
    parts = choices.get("accumulate", 1)
    ids = jax.ShapeDtypeStruct((batch // parts, sequence), jnp.int32)
    rules, memory = choices.get("rules", "derived"), choices.get("memory", "plain")
    dtype = choices.get("compute_dtype")
    if memory == "plain":
        how = {key: choices.get(key, False) for key in ("scan", "remat")}

        def loss(params: Any, tokens: Any, targets: Any) -> jax.Array:
            return gpt2.loss(cast(params, dtype), tokens, targets, config, rules, **how)

        sets = 1 if parts == 1 else 2  # the sum, and those of the part under way
        return cost.residuals(loss, state.params, ids, ids).bytes, sets * nbytes(state.params), 0
    pieces = Pieces(config, rules, memory == "small", dtype)
    layer = gpt2.shapes(config)["h"][0]
    x = jax.ShapeDtypeStruct((*ids.shape, config.n_embd), dtype or jnp.float32)
    _, kept = jax.eval_shape(pieces.keep, layer, x)
    gradients = nbytes(layer) + sum(nbytes(state.params[key]) for key in EMBEDDINGS)
    recomputed = 0
    if choices.get("clip_norm") is not None:
        recomputed = config.n_layer * cost.count(pieces.pull, layer, kept, x).flops
    return config.n_layer * nbytes(kept), gradients, recomputed
