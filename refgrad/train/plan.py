"""The memory of a training step before anything is allocated: derived from shapes, and as XLA plans it."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from refgrad import cost
from refgrad._text import Table, table
from refgrad.models import gpt2
from refgrad.train.optimiser import State
from refgrad.train.settings import StepOptions
from refgrad.train.update_in_backward.layers import EMBEDDINGS, LayerVJPs, cast


@dataclasses.dataclass(frozen=True)
class Plan:
    """The bytes that a step needs, and the FLOPs that clipping recomputes."""

    state: int
    """Parameters and the transformation's state, updated in place."""
    kept: int
    """Residuals from the forward to the backward pass, beside the parameters."""
    gradients: int
    """Gradients alive at once: all of them, or those of one layer and of the embeddings, since a tied table gets its
    gradient from both ends."""
    temporaries: int
    """XLA's plan for all other memory, after fusion and reuse."""
    recomputed: int
    """FLOPs of the backward pass that clipping runs twice; 0 without clipping."""

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
    """Return the bytes of a tree's leaves, which may be abstract."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def plan_of(compiled: Any, config: gpt2.Config, state: State, batch: int, sequence: int, **choices: Any) -> Plan:
    """Return the plan of a step that `make_step(config, tx, **choices)` made.

    Args:
        compiled: The compiled step.
        config: The model's sizes.
        state: The state, whose leaves may be abstract.
        batch: Rows of the batch.
        sequence: Tokens per row.
        **choices: The options that `make_step` was given (`StepOptions`).

    Raises:
        RuntimeError: The backend has no memory analysis.
    """
    plan = compiled.memory_analysis()
    if plan is None:
        raise RuntimeError(f"the {jax.default_backend()} backend has no memory analysis")
    kept, gradients, recomputed = _derived(config, state, batch, sequence, StepOptions(**choices))
    return Plan(nbytes(state), kept, gradients, plan.temp_size_in_bytes, recomputed)


def device_plan(compiled: Any, state: State) -> Table:
    """Return a table of one device's memory: its share of the state, and XLA's temporaries where they are known."""
    share = sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(state))
    plan = compiled.memory_analysis()
    rows = [
        ["state: its share of parameters and optimiser", f"{share:,}"],
        ["XLA's temporaries, compiled", "not given" if plan is None else f"{plan.temp_size_in_bytes:,}"],
    ]
    return Table(["memory of a step, each device", "bytes"], rows)


def _derived(
    config: gpt2.Config, state: State, batch: int, sequence: int, options: StepOptions
) -> tuple[int, int, int]:
    """Return the bytes kept, the bytes of gradients alive at once, and the FLOPs of the recomputation."""
    ids = jax.ShapeDtypeStruct((batch // options.accumulate, sequence), jnp.int32)
    dtype = options.compute_dtype
    if options.memory == "plain":

        def loss(params: Any, tokens: Any, targets: Any) -> jax.Array:
            return gpt2.loss(cast(params, dtype), tokens, targets, config, options.rules, options.scan, options.remat)

        sets = 1 if options.accumulate == 1 else 2  # the sum, and the gradients of the current part
        return cost.residuals(loss, state.params, ids, ids).bytes, sets * nbytes(state.params), 0
    vjps = LayerVJPs(config, options.rules, options.memory == "small", dtype)
    layer = gpt2.shapes(config)["h"][0]
    x = jax.ShapeDtypeStruct((*ids.shape, config.n_embd), dtype or jnp.float32)
    _, kept = jax.eval_shape(vjps.keep, layer, x)
    gradients = nbytes(layer) + sum(nbytes(state.params[key]) for key in EMBEDDINGS)
    recomputed = 0
    if options.clip_norm is not None:
        recomputed = config.n_layer * cost.count(vjps.pull, layer, kept, x).flops
    return config.n_layer * nbytes(kept), gradients, recomputed
