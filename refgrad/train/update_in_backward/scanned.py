"""A training step with the optimiser's update inside the backward pass, over stacked layers walked by `lax.scan`.

The state's layers are carried through the backward loop, and each iteration replaces one slice of every array. That is
the ordinary update exactly where the transformation treats each layer of a stacked leaf alone: element by element
along axis 0, which `layerwise` proves or refuses; bit for bit, but for functions that compilers approximate (madgrad's
cube root): it may round them otherwise in arrays of another shape.
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
from refgrad.train.update_in_backward.layers import Pieces, apart
from refgrad.train.update_in_backward.layerwise import EACH, OTHER, SAME, kinds
from refgrad.train.update_in_backward.measures import Measures, unless_finite
from refgrad.train.update_in_backward.per_leaf import Separate, separate
from refgrad.train.update_in_backward.unrolled import Leaves

CPU_OPTIONS = {"xla_cpu_copy_insertion_use_region_analysis": True}  # else the carry is copied in every iteration


@dataclasses.dataclass(frozen=True)
class Layerwise:
    """A transformation's update of the stacked state, and of one layer's slice of it."""

    whole: Separate
    one_layer: Separate
    stacked: frozenset[int]
    """The state leaves that have an axis of layers."""


def layerwise(tx: Any, state: State, way_out: str) -> Layerwise:
    """`tx` taken apart for states like this one, with stacked layers.

    Raises ValueError as `separate` does, and where a new leaf is made across the layers of a stacked one, naming it.
    """
    whole = separate(tx, state, way_out)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)
    one = jax.eval_shape(lambda params: init_state(params, tx), _one_layer(shapes.params))
    one_layer = separate(tx, one, way_out)
    pairs = zip(jax.tree.leaves(shapes.opt_state), jax.tree.leaves(one.opt_state), strict=True)
    stacked = frozenset(i for i, (many, single) in enumerate(pairs) if many.shape != single.shape)
    layers = set(jax.tree.leaves(jax.tree.unflatten(jax.tree.structure(state.params), range(whole.leaves))["h"]))
    params = [EACH if i in layers else OTHER for i in range(whole.leaves)]
    inputs = [*params, *params, *(EACH if i in stacked else OTHER for i in range(len(whole.owners)))]
    names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    for name, given, found in zip(names, inputs[whole.leaves :], kinds(whole.program, inputs), strict=True):
        if found != given and found not in (SAME, OTHER):
            raise ValueError(
                f"tx makes the new {name} across the layers that are stacked in it, or by operations not known to keep "
                f"them apart, so that no layer can be updated before the others' gradients exist: {way_out}, or a list "
                "of layers with scan=False"
            )
    if not alike(whole.program, one_layer.program):
        raise ValueError(f"tx does something else with one layer than with all of them stacked: {way_out}")
    return Layerwise(whole, one_layer, stacked)


def _one_layer(params: Any) -> Any:
    """The parameters' shapes with one layer in the stack."""
    return {
        **params,
        "h": jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype), params["h"]),
    }


def step(
    pieces: Pieces,
    parts: Layerwise,
    clip_norm: float | None,
    measured: bool,
    state: State,
    tokens: Array,
    targets: Array,
) -> tuple[State, Array | Measures]:
    """The state after one step and the loss before it, or all measures; `state.params["h"]` is stacked."""
    leaves = Leaves(state, parts.whole, tokens, measured)
    params, places = state.params, leaves.places
    x, pull_embed = pieces.embed(params, tokens)
    with jax.named_scope("h"):
        x, kept = lax.scan(lambda x, layer: pieces.keep(layer, x), x, params["h"])
    loss, from_head, dx = pieces.head(params, x, targets)

    def ends(dx: Array) -> gpt2.Params:
        return pieces.add(from_head, pull_embed(dx))

    norm = None
    if clip_norm is not None:
        norm = norm_by_scan(pieces, params["h"], kept, dx, ends)
        leaves.scale = partial(scaled, norm=norm, limit=clip_norm)
    if measured:
        leaves.choose = unless_finite(loss if norm is None else loss + norm)
    dx = leaves.consume(places, pieces.only_head(from_head), dx)
    with jax.named_scope("h"):
        dx = _backward(pieces, parts, leaves, kept, dx)
    leaves.consume(places, pieces.only_embed(ends(dx)), ())
    return leaves.finish(loss)


def _backward(pieces: Pieces, parts: Layerwise, leaves: Leaves, kept: Any, dx: Array) -> Array:
    """Walk the layers from the last, replacing a slice of each of their leaves; returns the first block's dx."""
    places, structure = jax.tree.flatten(leaves.places["h"])
    owned = parts.whole.owned(places)
    unowned = parts.stacked.difference(owned)  # read by a layer's update and changed by none, as madgrad's x₀

    def iteration(carry: Any, x: Any) -> tuple[Any, list[Array]]:
        (params, opt_state, dx), (n, kept) = carry, x
        now = [_slice(leaf, n) for leaf in params], [_slice(leaf, n) for leaf in opt_state]
        layer = jax.tree.unflatten(structure, [leaf[0] for leaf in now[0]])
        grads, dx = pieces.pull(layer, kept, dx)

        def body(grads: list[Array], mine: Any) -> Any:
            read = {i: _slice(leaves.opt_state[i], n) for i in unowned}
            return leaves.updated(parts.one_layer, places, owned, grads, mine, read)

        with jax.named_scope("update"):
            new, dx = apart(leaves.one, body, [g[None] for g in jax.tree.leaves(grads)], now, dx)
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
