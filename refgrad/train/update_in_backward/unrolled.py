"""A training step with the optimiser's update inside the backward pass, over a list of layers."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from refgrad.models import gpt2
from refgrad.train.optimiser import State
from refgrad.train.update_in_backward.clip import norm_by_list, scaled, square
from refgrad.train.update_in_backward.layers import LayerVJPs, opaque_call, runtime_one
from refgrad.train.update_in_backward.measures import Measures, measures, unless_finite
from refgrad.train.update_in_backward.per_leaf import PerLeafUpdate

Owned = tuple[list[Array], list[Array]]
"""Parameters, and the leaves of the transformation's state that belong to them."""


class StateLeaves:
    """A state's leaves by index: those before the step, and the new ones so far."""

    def __init__(self, state: State, update: PerLeafUpdate, tokens: Array, measured: bool) -> None:
        self.update, self.one, self.measured = update, runtime_one(tokens), measured
        self.scale: Callable[[Any], Any] = lambda grads: grads
        self.choose: Callable[[Any, Any], Any] = lambda new, old: new
        self.params, self._params = jax.tree.flatten(state.params)
        self.opt_state, self._opt_state = jax.tree.flatten(state.opt_state)
        self._new: Owned = list(self.params), list(self.opt_state)
        self.places = jax.tree.unflatten(self._params, range(len(self.params)))
        self.squares: list[Any] = [None] * len(self.params)

    def consume(self, group: Any, grads: Any, after: Any) -> Any:
        """Update the leaves that have gradients; return `after` with a data dependency on the update.

        Args:
            group: A mapping of trees of places.
            grads: Gradients for some of its keys.
            after: Arrays that must not be used before the update.
        """
        places = jax.tree.leaves({key: group[key] for key in grads})
        owned = self.update.owned(places)

        def body(grads: list[Array], carry: tuple[Owned, list[Array]]) -> tuple[Owned, list[Array]]:
            return self.updated(self.update, places, owned, grads, carry[0]), self.measure(grads)

        with jax.named_scope("update"):
            leaves = [self.params[i] for i in places], [self.opt_state[i] for i in owned]
            empty = [jnp.zeros((), jnp.float32)] * (len(places) if self.measured else 0)
            (leaves, squares), after = opaque_call(self.one, body, jax.tree.leaves(grads), (leaves, empty), after)
        self.replace(places, owned, leaves)
        self.note(places, squares)
        return after

    def measure(self, grads: Sequence[Array]) -> list[Array]:
        """Return each gradient's Σ g² if the step is measured, else nothing."""
        return [square(g).astype(jnp.float32) for g in grads] if self.measured else []

    def note(self, places: Sequence[int], squares: Sequence[Array]) -> None:
        """Store the squares of the gradients at those places."""
        for place, value in zip(places if self.measured else (), squares, strict=True):
            self.squares[place] = value

    def updated(
        self,
        update: PerLeafUpdate,
        places: Sequence[int],
        owned: Sequence[int],
        grads: list[Array],
        before: Owned,
        read: Mapping[int, Array] = MappingProxyType({}),
    ) -> Owned:
        """Return the new parameters at `places` and the new state leaves `owned`.

        Args:
            update: The update of the whole state, or of one layer's slice.
            places: The parameters' indices.
            owned: The indices of the state leaves that belong to them.
            grads: Their gradients.
            before: Their values before the step.
            read: State leaves that no gradient changes, by index, in place of the whole ones.
        """
        params = _put(self.params, places, before[0])
        opt_state = _put(_put(self.opt_state, list(read), list(read.values())), owned, before[1])
        new = update.update(dict(zip(places, self.scale(grads), strict=True)), params, opt_state)
        return self.choose(new, before)

    def replace(self, places: Sequence[int], owned: Sequence[int], new: Owned) -> None:
        """Store new leaves."""
        self._new = _put(self._new[0], places, new[0]), _put(self._new[1], owned, new[1])

    def finish(self, loss: Array) -> tuple[State, Array | Measures]:
        """Update counts, schedules and keys; return the new state, and the loss or all measures."""
        shared = self.update.shared
        old = [], [self.opt_state[i] for i in shared]
        new = self.update.update({}, self.params, self.opt_state, shared=True)
        self.replace([], shared, self.choose(new, old))
        params, opt_state = self._new
        state = State(jax.tree.unflatten(self._params, params), jax.tree.unflatten(self._opt_state, opt_state))
        return state, measures(loss, jax.tree.unflatten(self._params, self.squares)) if self.measured else loss


def _put(leaves: Sequence[Array], places: Sequence[int], new: Sequence[Array]) -> list[Array]:
    """Return the leaves with those at `places` replaced."""
    replaced = dict(zip(places, new, strict=True))
    return [replaced.get(i, leaf) for i, leaf in enumerate(leaves)]


def step(
    vjps: LayerVJPs,
    update: PerLeafUpdate,
    clip_norm: float | None,
    measured: bool,
    state: State,
    tokens: Array,
    targets: Array,
) -> tuple[State, Array | Measures]:
    """Return the state after one step, and the loss before it or all measures; `state.params["h"]` is a list."""
    leaves = StateLeaves(state, update, tokens, measured)
    params, places = state.params, leaves.places
    x, pull_embed = vjps.embed(params, tokens)
    kept = []
    for n, layer in enumerate(params["h"]):
        with jax.named_scope(f"h.{n}"):
            x, keeps = vjps.keep(layer, x)
        kept.append(keeps)
    loss, from_head, dx = vjps.head(params, x, targets)

    def ends(dx: Array) -> gpt2.Params:
        return vjps.add(from_head, pull_embed(dx))

    norm = None
    if clip_norm is not None:
        norm, kept = norm_by_list(vjps, leaves.one, params["h"], kept, dx, ends)
        leaves.scale = partial(scaled, norm=norm, limit=clip_norm)
    if measured:
        leaves.choose = unless_finite(loss if norm is None else loss + norm)
    dx, residuals = leaves.consume(places, vjps.only_head(from_head), (dx, kept.pop()))
    for n in reversed(range(len(params["h"]))):
        with jax.named_scope(f"h.{n}"):
            grads, dx = vjps.pull(params["h"][n], residuals, dx)
            dx, residuals = leaves.consume(places["h"][n], grads, (dx, kept.pop() if kept else ()))
    leaves.consume(places, vjps.only_embed(ends(dx)), ())
    return leaves.finish(loss)
