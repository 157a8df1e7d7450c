"""A training step with the optimiser's update inside the backward pass, over stacked layers walked by `lax.scan`.

The state's layers are carried through the backward loop, and each iteration replaces one slice of every array. This
equals the ordinary update if the transformation treats each layer of a stacked leaf alone, element by element along
axis 0, which `layerwise_update` proves or refuses. The two are then equal bit for bit, except for functions that a
compiler approximates (madgrad's cube root): it may round them differently in arrays of another shape.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from refgrad.jaxpr.alike import alike
from refgrad.models import gpt2
from refgrad.models.inputs import path_name
from refgrad.train.optimiser import State, init_state
from refgrad.train.update_in_backward.clip import norm_by_scan, scaled
from refgrad.train.update_in_backward.layers import LayerVJPs, opaque_call
from refgrad.train.update_in_backward.layerwise import EACH, OTHER, SAME, kinds
from refgrad.train.update_in_backward.measures import Measures, unless_finite
from refgrad.train.update_in_backward.per_leaf import PerLeafUpdate, per_leaf_update
from refgrad.train.update_in_backward.unrolled import StateLeaves

CPU_OPTIONS = {"xla_cpu_copy_insertion_use_region_analysis": True}  # or every iteration copies the carry


@dataclasses.dataclass(frozen=True)
class LayerwiseUpdate:
    """The update of the whole stacked state, and of one layer's slice of it."""

    whole: PerLeafUpdate
    one_layer: PerLeafUpdate
    stacked: frozenset[int]
    """The state leaves that have an axis of layers."""


def layerwise_update(tx: Any, state: State, way_out: str) -> LayerwiseUpdate:
    """Return the update of `tx` split by leaf and layer, for states like this one, with stacked layers.

    Raises ValueError as `per_leaf_update` does, and for a new leaf that depends on several layers of a stacked one.
    """
    whole = per_leaf_update(tx, state, way_out)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)
    sliced = jax.eval_shape(lambda params: init_state(params, tx), _one_layer(shapes.params))
    one_layer = per_leaf_update(tx, sliced, way_out)
    pairs = zip(jax.tree.leaves(shapes.opt_state), jax.tree.leaves(sliced.opt_state), strict=True)
    stacked = frozenset(i for i, (all_layers, layer) in enumerate(pairs) if all_layers.shape != layer.shape)
    layers = set(jax.tree.leaves(jax.tree.unflatten(jax.tree.structure(state.params), range(whole.leaves))["h"]))
    params = [EACH if i in layers else OTHER for i in range(whole.leaves)]
    inputs = [*params, *params, *(EACH if i in stacked else OTHER for i in range(len(whole.owners)))]
    names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    for name, before, after in zip(names, inputs[whole.leaves :], kinds(whole.program, inputs), strict=True):
        if after != before and after not in (SAME, OTHER):
            raise ValueError(
                f"tx makes the new {name} across the layers that are stacked in it, or by operations not known to keep "
                f"them apart, so that no layer can be updated before the others' gradients exist: {way_out}, or a list "
                "of layers with scan=False"
            )
    if not alike(whole.program, one_layer.program):
        raise ValueError(f"tx does something else with one layer than with all of them stacked: {way_out}")
    return LayerwiseUpdate(whole, one_layer, stacked)


def _one_layer(params: Any) -> Any:
    """Return the parameters' shapes with one layer in the stack."""
    return {
        **params,
        "h": jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype), params["h"]),
    }


def step(
    vjps: LayerVJPs,
    layerwise: LayerwiseUpdate,
    clip_norm: float | None,
    measured: bool,
    state: State,
    tokens: Array,
    targets: Array,
) -> tuple[State, Array | Measures]:
    """Return the state after one step, and the loss before it or all measures; `state.params["h"]` is stacked."""
    leaves = StateLeaves(state, layerwise.whole, tokens, measured)
    params, places = state.params, leaves.places
    x, pull_embed = vjps.embed(params, tokens)
    with jax.named_scope("h"):
        x, kept = lax.scan(lambda x, layer: vjps.keep(layer, x), x, params["h"])
    loss, from_head, dx = vjps.head(params, x, targets)

    def ends(dx: Array) -> gpt2.Params:
        return vjps.add(from_head, pull_embed(dx))

    norm = None
    if clip_norm is not None:
        norm = norm_by_scan(vjps, params["h"], kept, dx, ends)
        leaves.scale = partial(scaled, norm=norm, limit=clip_norm)
    if measured:
        leaves.choose = unless_finite(loss if norm is None else loss + norm)
    dx = leaves.consume(places, vjps.only_head(from_head), dx)
    with jax.named_scope("h"):
        dx = _backward(vjps, layerwise, leaves, kept, dx)
    leaves.consume(places, vjps.only_embed(ends(dx)), ())
    return leaves.finish(loss)


def _backward(vjps: LayerVJPs, layerwise: LayerwiseUpdate, leaves: StateLeaves, kept: Any, dx: Array) -> Array:
    """Walk the layers from the last, replacing a slice of each of their leaves; return the first block's dx."""
    places, structure = jax.tree.flatten(leaves.places["h"])
    owned = layerwise.whole.owned(places)
    unowned = layerwise.stacked.difference(owned)  # read by a layer's update and changed by none, such as madgrad's x₀

    def iteration(carry: Any, x: Any) -> tuple[Any, list[Array]]:
        (params, opt_state, dx), (n, kept) = carry, x
        before = [_slice(leaf, n) for leaf in params], [_slice(leaf, n) for leaf in opt_state]
        layer = jax.tree.unflatten(structure, [leaf[0] for leaf in before[0]])
        grads, dx = vjps.pull(layer, kept, dx)

        def body(grads: list[Array], before: Any) -> Any:
            read = {i: _slice(leaves.opt_state[i], n) for i in unowned}
            return leaves.updated(layerwise.one_layer, places, owned, grads, before, read)

        with jax.named_scope("update"):
            new, dx = opaque_call(leaves.one, body, [g[None] for g in jax.tree.leaves(grads)], before, dx)
        put = [
            [_put(leaf, n, s) for leaf, s in zip(*pair, strict=True)]
            for pair in zip((params, opt_state), new, strict=True)
        ]
        return (*put, dx), leaves.measure(jax.tree.leaves(grads))

    carry = [leaves.params[i] for i in places], [leaves.opt_state[i] for i in owned], dx
    steps = jax.tree.leaves(kept)[0].shape[0]
    (params, opt_state, dx), squares = lax.scan(iteration, carry, (jnp.arange(steps), kept), reverse=True)
    leaves.replace(places, owned, (params, opt_state))
    leaves.note(places, squares)
    return dx


def _slice(leaf: Array, n: Array) -> Array:
    return lax.dynamic_index_in_dim(leaf, n)


def _put(leaf: Array, n: Array, new: Array) -> Array:
    return lax.dynamic_update_index_in_dim(leaf, new, n, 0)
