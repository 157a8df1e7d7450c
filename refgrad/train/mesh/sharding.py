"""The sharding of each array: one table from a parameter's name to the mesh axes that split each of its dimensions.

There are three axes. `data` splits the batch alone. `fsdp` splits the batch too, and every matrix: a device gathers a
layer's matrices when it needs them. `model` splits the computation of a layer, heads and hidden columns, and the
matrices with it.

Two rules are unusual. The checkpoint has c_attn's columns as q | k | v, each n_h heads side by side, so that a cut of
its columns would cross them: `model` cuts its rows, and an all-to-all turns those into the columns of a device's own
heads. No axis cuts the vocabulary, since 50,257 has no small divisor: the embeddings are cut along h, and the head's
work along the sequence.

Source: Rajbhandari et al. (2020), "ZeRO"; Shoeybi et al. (2019), "Megatron-LM"; tables of named rules: MaxText.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from refgrad.models import gpt2
from refgrad.models.inputs import named_leaves, path_name

AXES = ("data", "fsdp", "model")
Entry = tuple[str, ...]

NONE: Entry = ()
BATCH: Entry = ("data", "fsdp")
BOTH: Entry = ("model", "fsdp")
FSDP: Entry = ("fsdp",)
MODEL: Entry = ("model",)

# The end of a parameter's name → the axes that split each dimension of one layer's array.
RULES: Mapping[str, tuple[Entry, ...]] = {
    "wte.weight": (NONE, BOTH),  # (V, h)
    "wpe.weight": (NONE, BOTH),  # (n_positions, h)
    "lm_head.weight": (NONE, BOTH),  # (V, h)
    "attn.c_attn.weight": (MODEL, FSDP),  # (h, 3h)
    "attn.c_attn.bias": (NONE,),  # (3h,)
    "attn.c_proj.weight": (MODEL, FSDP),  # (h, h)
    "attn.c_proj.bias": (MODEL,),  # (h,)
    "mlp.c_fc.weight": (FSDP, MODEL),  # (h, 4h)
    "mlp.c_fc.bias": (MODEL,),  # (4h,)
    "mlp.c_proj.weight": (MODEL, FSDP),  # (4h, h)
    "mlp.c_proj.bias": (MODEL,),  # (h,)
    "ln_1.weight": (NONE,),
    "ln_1.bias": (NONE,),
    "ln_2.weight": (NONE,),
    "ln_2.bias": (NONE,),
    "ln_f.weight": (NONE,),
    "ln_f.bias": (NONE,),
}
# An activation → the symbol of each dimension, and the axes that split it.
ACTIVATIONS: Mapping[str, tuple[tuple[str, Entry], ...]] = {
    "ids": (("b", BATCH), ("s", NONE)),
    "stream": (("b", BATCH), ("s", NONE), ("h", NONE)),
    "heads": (("b", BATCH), ("n_h", MODEL), ("s", NONE), ("d", NONE)),
    "hidden layer": (("b", BATCH), ("s", NONE), ("4h", MODEL)),
    "head's stream": (("b", BATCH), ("s", MODEL), ("h", NONE)),
}
# A symbol → its name in messages, and the advice for a size that its axes do not divide.
DIMENSIONS = {
    "b": ("the batch", "take a multiple of {by} sequences"),
    "s": ("the sequence", "the head's work is cut along it; take a multiple of {by}"),
    "n_h": ("model.n_head", "a device has whole heads; take another mesh.model, or a multiple of {by} heads"),
    "4h": ("4 model.n_embd", "take another mesh.model"),
}


def rule(name: str) -> tuple[Entry, ...]:
    """Return the table's row for a parameter. Raise ValueError if no row matches the end of its name."""
    for end, entries in RULES.items():
        if name == end or name.endswith(f".{end}"):
            return entries
    raise ValueError(f"{name} has no rule: give it a row in refgrad.train.mesh.sharding.RULES")


def spec(entries: tuple[Entry, ...], mesh: Mesh, leading: int = 0) -> PartitionSpec:
    """Return a row as a PartitionSpec, after `leading` whole dimensions, without axes that the mesh does not have."""
    parts = []
    for entry in entries:
        axes = tuple(axis for axis in entry if axis in mesh.shape)
        parts.append(axes[0] if len(axes) == 1 else axes or None)
    while parts and parts[-1] is None:
        parts.pop()
    return PartitionSpec(*[None] * leading if parts else (), *parts)


def specs(params: gpt2.Params, mesh: Mesh) -> Any:
    """Return a tree of PartitionSpecs like `params` (arrays or shapes, layers as a list or stacked)."""

    def of(path: tuple[Any, ...], leaf: Any) -> PartitionSpec:
        entries = rule(path_name(path))
        return spec(entries, mesh, len(leaf.shape) - len(entries))

    return jax.tree_util.tree_map_with_path(of, params)


def shardings(state: Any, mesh: Mesh) -> Any:
    """Return a tree of NamedShardings like `state`: parameters, or a `State` with arrays of the optimiser for each.

    An array under a parameter's name and of its shape is split as the parameter is. Any other (a count, a key, a
    factored moment) is whole on every device.
    """
    params = named_leaves(_params(state))

    def of(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        parts = path_name(path).split(".")
        ends = (".".join(parts[n:]) for n in range(len(parts)))
        name = next((end for end in ends if end in params), None)
        if name is None or params[name].shape != leaf.shape:
            return NamedSharding(mesh, PartitionSpec())
        entries = rule(name)
        return NamedSharding(mesh, spec(entries, mesh, len(leaf.shape) - len(entries)))

    return jax.tree_util.tree_map_with_path(of, state)


def _params(state: Any) -> gpt2.Params:
    return getattr(state, "params", state)


def batch_spec(mesh: Mesh) -> PartitionSpec:
    """Return the PartitionSpec of token ids (b, s)."""
    return spec(tuple(axes for _, axes in ACTIVATIONS["ids"]), mesh)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of token ids (b, s)."""
    return NamedSharding(mesh, batch_spec(mesh))


def check(config: gpt2.Config, sizes: Mapping[str, int], batch: int, sequence: int) -> None:
    """Raise ValueError unless a mesh {axis: size} divides the model, and a global batch of batch × sequence ids.

    The message names the dimension, its axes, the sizes and the way out.
    """

    def divides(what: str, size: int, axes: Entry, way_out: str) -> None:
        by = math.prod(sizes.get(axis, 1) for axis in axes)
        if size % by:
            product = " × ".join(f"mesh.{axis} = {sizes[axis]}" for axis in axes if sizes.get(axis, 1) > 1)
            raise ValueError(f"{what} is {size}, which {product} does not divide: {way_out.format(by=by)}")

    for path, leaf in jax.tree_util.tree_leaves_with_path(gpt2.shapes(config)):
        for n, (size, axes) in enumerate(zip(leaf.shape, rule(path_name(path)), strict=True)):
            way_out = "take another mesh, or a model.n_embd that is a multiple of {by}"
            divides(f"dimension {n} of {path_name(path)}", size, axes, way_out)
    values = {"b": batch, "s": sequence, "n_h": config.n_head, "4h": 4 * config.n_embd}
    for dimensions in ACTIVATIONS.values():
        for symbol, axes in dimensions:
            if axes:
                what, way_out = DIMENSIONS[symbol]
                divides(what, values[symbol], axes, way_out)
