"""GPT-2's layer and loss out of the operations: parts of their own, or fused, as a set of rules provides them."""

import math
from collections.abc import Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from refgrad.numerics import wide, wide_dtype
from refgrad.ops import operations
from refgrad.ops.fused.attention import KERNEL, Block
from refgrad.ops.multi_head_attention import attend
from refgrad.rule_sets import rule_set

# Fused rules: rows of a block of queries; rows whose logits are alive at once, as near as whole positions come to it
# (a GPU's products need more of them), and columns of them that a CPU makes at a time in 16 bits, to keep them in its
# cache (its float32 products are too slow to wait for memory); or into how many chunks the vocabulary is cut.
QUERIES = 128
ROWS_OF_LOGITS = {"cpu": 512, "gpu": 2048}
COLUMNS_OF_LOGITS = 8192
CHUNKS_OF_VOCABULARY = 8

Layer = Mapping[str, Any]


class Layers(Protocol):
    """One layer: the stream (..., s, h), the layer's parameters, heads and ε → (..., s, h).

    With `recompute`, nothing is kept for the backward pass but the stream.
    """

    def __call__(self, x: Array, layer: Layer, n_head: int, eps: float, recompute: bool = False) -> Array: ...


class Composition(NamedTuple):
    """A set of rules: its operations by name, its layer, and its mean loss of x (..., s, h), E (V, h), ids (..., s)."""

    operations: SimpleNamespace
    block: Layers
    loss: Any


def composition(rules: str) -> Composition:
    """Compose the model by `rules`, one of `refgrad.ops.RULES`. Raises ValueError for any other."""
    o = operations(rules)
    if rule_set(rules).fused:
        return Composition(o, partial(_fused_block, o, rules), partial(_fused_loss, o))
    return Composition(o, partial(_block, o), partial(_loss, o))


def chunk_of_positions(leading: tuple[int, ...]) -> int:
    """Positions whose logits are alive at once, over `leading` axes of examples: at least one."""
    rows = ROWS_OF_LOGITS.get(jax.default_backend(), ROWS_OF_LOGITS["cpu"])
    return max(1, rows // max(1, math.prod(leading)))


def columns_of_logits(vocabulary: int, dtype: Any) -> int:
    """Columns of a chunk's logits that are made at a time."""
    in_cache = jax.default_backend() == "cpu" and dtype != wide_dtype(dtype)
    return min(vocabulary, COLUMNS_OF_LOGITS) if in_cache else vocabulary


def queries(sequence: int) -> int:
    """Rows of a block of queries: twice as many in a long sequence, where fewer skip as much and compile sooner."""
    return QUERIES if sequence < 8 * QUERIES else 2 * QUERIES


def attention_by(rules: str, sequence: int) -> Block:
    """Attention's `block` under fused `rules`: rows, or the kernel's name."""
    return KERNEL if rule_set(rules).kernel else queries(sequence)


def block_sizes(batch: int, sequence: int, vocabulary: int) -> dict[str, int]:
    """The symbols of fused rules by name, in float32: m rows of a block of queries, c positions of a chunk of logits,
    v of whose columns are made at a time."""
    return {"m": queries(sequence), "c": chunk_of_positions((batch,)), "v": columns_of_logits(vocabulary, jnp.float32)}


def _block(o: SimpleNamespace, x: Array, layer: Layer, n_head: int, eps: float, recompute: bool = False) -> Array:
    """Each module reads the normalised stream and adds to it."""

    def block(x: Array, layer: Layer) -> Array:
        with jax.named_scope("ln_1"):
            normed = o.layer_norm(x, layer["ln_1"]["weight"], layer["ln_1"]["bias"], eps)
        with jax.named_scope("attn"):
            w_qkv, b_qkv, w_out, b_out = projections(layer["attn"], "c_attn")
            x = o.residual(x, attend(o, normed, w_qkv, b_qkv, w_out, b_out, n_head))
        with jax.named_scope("ln_2"):
            normed = o.layer_norm(x, layer["ln_2"]["weight"], layer["ln_2"]["bias"], eps)
        with jax.named_scope("mlp"):
            w_fc, b_fc, w_proj, b_proj = projections(layer["mlp"], "c_fc")
            return o.residual(x, o.linear(o.gelu(o.linear(normed, w_fc, b_fc)), w_proj, b_proj))

    return (jax.checkpoint(block) if recompute else block)(x, layer)


def projections(module: Layer, first: str) -> tuple[Array, ...]:
    """A module's two weights, each followed by its bias."""
    return tuple(module[name][part] for name in (first, "c_proj") for part in ("weight", "bias"))


def _fused_block(
    o: SimpleNamespace, rules: str, x: Array, layer: Layer, n_head: int, eps: float, recompute: bool = False
) -> Array:
    """The layer as one rule."""
    norms = ([layer[norm][part] for part in ("weight", "bias")] for norm in ("ln_1", "ln_2"))
    (gamma_1, beta_1), (gamma_2, beta_2) = norms
    attn, mlp = projections(layer["attn"], "c_attn"), projections(layer["mlp"], "c_fc")
    by = attention_by(rules, x.shape[-2])
    return o.block(x, gamma_1, beta_1, *attn, gamma_2, beta_2, *mlp, n_head, eps, by, recompute)


def _loss(o: SimpleNamespace, x: Array, E: Array, targets: Array, chunks: str = "positions") -> Array:
    """Logits of every position, then their mean cross-entropy."""
    if chunks != "positions":
        raise ValueError(
            f"chunks is {chunks!r}, but only rules='fused' has a head by chunks: take them, or leave it out"
        )
    with jax.named_scope("lm_head"):
        logits = o.lm_head(x, E)
    with jax.named_scope("loss"):
        return o.cross_entropy(wide(logits), targets)


def _fused_loss(o: SimpleNamespace, x: Array, E: Array, targets: Array, chunks: str = "positions") -> Array:
    """Head and cross-entropy as one; every target counts."""
    if chunks not in ("positions", "vocabulary"):
        raise ValueError(f"chunks is {chunks!r}, but must be 'positions' or 'vocabulary'")
    with jax.named_scope("loss"):
        mask = jnp.ones_like(targets)
        if chunks == "vocabulary":
            return o.head_loss_by_vocabulary(x, E, targets, mask, -(-E.shape[0] // CHUNKS_OF_VOCABULARY))
        chunk, columns = chunk_of_positions(targets.shape[:-1]), columns_of_logits(E.shape[0], x.dtype)
        return o.head_loss(x, E, targets, mask, chunk, columns)
