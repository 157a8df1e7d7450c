"""Checks of a model's inputs against its config, before anything is traced or compiled."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def path_name(path: tuple[Any, ...]) -> str:
    """A leaf's path in the tree as the checkpoint's name: "h.0.attn.c_attn.weight"."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def named_leaves(tree: Any) -> dict[str, Any]:
    """The tree's leaves by name."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def check_params(params: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Hold a parameter tree against the shapes that its config means, layers as a list or stacked.

    Raises TypeError where the tree is not a mapping or a leaf is not floating, and ValueError for a missing, extra or
    misshapen leaf, or a dtype other than the first leaf's: each naming the leaf and the shape or dtype meant.
    """
    if not isinstance(params, Mapping):
        raise TypeError(f"params is a {type(params).__name__}, but must be the tree that init makes")
    if isinstance(params.get("h"), Mapping):
        layers = expected["h"]
        stacked = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((len(layers), *leaf.shape), leaf.dtype), layers[0])
        expected = {**expected, "h": stacked}
    got, want = named_leaves(params), named_leaves(expected)
    for name in want.keys() - got.keys():
        raise ValueError(f"params has no {name}, which this config needs with shape {want[name].shape}")
    for name in got.keys() - want.keys():
        raise ValueError(f"params has {name} of shape {jnp.shape(got[name])}, which this config does not have")
    first, dtype = next((name, jnp.result_type(leaf)) for name, leaf in got.items())
    for name, leaf in got.items():
        if jnp.shape(leaf) != want[name].shape:
            raise ValueError(f"params: {name} has shape {jnp.shape(leaf)}, but this config means {want[name].shape}")
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(f"params: {name} is {jnp.result_type(leaf)}, but parameters are floating arrays")
        if jnp.result_type(leaf) != dtype:
            raise ValueError(
                f"params: {name} is {jnp.result_type(leaf)} but {first} is {dtype}: cast the tree to one dtype"
            )


def check_ids(name: str, ids: Any, vocab_size: int, n_positions: int) -> None:
    """Hold ids (..., s) against the vocabulary and the longest sequence.

    Raises TypeError where they are not integers, and ValueError for no axis, a sequence longer than `n_positions` and,
    where the ids are concrete, for an id outside [0, vocab_size): naming its value, its index and the bound.
    """
    dtype, shape = jnp.result_type(ids), jnp.shape(ids)
    if not jnp.issubdtype(dtype, jnp.integer):
        raise TypeError(f"{name} is {dtype}, but ids are integers: cast it to int32")
    if not shape:
        raise ValueError(f"{name} is a scalar, but has one axis at least: the sequence")
    if shape[-1] > n_positions:
        raise ValueError(f"{name} has {shape[-1]} positions, but n_positions = {n_positions}: shorten the sequence")
    if isinstance(ids, Tracer) or not np.size(ids):
        return
    values = np.asarray(ids)
    for extreme in (values.argmin(), values.argmax()):
        index = np.unravel_index(extreme, shape)
        if not 0 <= values[index] < vocab_size:
            where = ", ".join(map(str, index))
            raise ValueError(f"{name}[{where}] is {values[index]}, but ids lie between 0 and {vocab_size - 1}")


def check_widths(**widths: int) -> None:
    """Hold a network's widths against the least that makes a layer. Raises ValueError naming the one below 1."""
    for name, value in widths.items():
        if value < 1:
            raise ValueError(f"{name} is {value}, but must be at least 1")
