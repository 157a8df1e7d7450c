"""A training step with the optimiser's update inside the backward pass, over a list of layers."""

from collections.abc import Sequence
from typing import Any

import jax
from jax import Array

from refgrad.train.optimiser import State
from refgrad.train.separate import Separate
from refgrad.train.walk import Pieces, apart, runtime_one

Mine = tuple[list[Array], list[Array]]


class Leaves:
    """A state's leaves by their places: those before the step, and those that it has made."""

    def __init__(self, state: State, separate: Separate, tokens: Array) -> None:
        self.separate, self.one = separate, runtime_one(tokens)
        self.params, self._params = jax.tree.flatten(state.params)
        self.opt_state, self._opt_state = jax.tree.flatten(state.opt_state)
        self._new: Mine = list(self.params), list(self.opt_state)
        self.places = jax.tree.unflatten(self._params, range(len(self.params)))

    def consume(self, group: Any, grads: Any, after: Any) -> Any:
        """Update the leaves at the places `group`, a tree, by their gradients; returns `after` once that is done."""
        places = jax.tree.leaves(group)
        owned = self.separate.owned(places)

        def body(grads: list[Array], mine: Mine) -> Mine:
            return self.updated(self.separate, places, owned, grads, mine)

        with jax.named_scope("update"):
            mine = [self.params[i] for i in places], [self.opt_state[i] for i in owned]
            mine, after = apart(self.one, body, jax.tree.leaves(grads), mine, after)
        self.replace(places, owned, mine)
        return after

    def updated(
        self, separate: Separate, places: Sequence[int], owned: Sequence[int], grads: list[Array], mine: Mine
    ) -> Mine:
        """What becomes of `mine`, the parameters at `places` and the state leaves `owned`, by these gradients."""
        params, opt_state = _put(self.params, places, mine[0]), _put(self.opt_state, owned, mine[1])
        return separate.update(dict(zip(places, grads, strict=True)), params, opt_state)

    def replace(self, places: Sequence[int], owned: Sequence[int], mine: Mine) -> None:
        """Enter new leaves."""
        self._new = _put(self._new[0], places, mine[0]), _put(self._new[1], owned, mine[1])

    def finish(self) -> State:
        """The new state, with what no gradient changes: counts, schedules, keys."""
        shared = self.separate.shared
        self.replace([], shared, self.separate.update({}, self.params, self.opt_state, shared=True))
        params, opt_state = self._new
        return State(jax.tree.unflatten(self._params, params), jax.tree.unflatten(self._opt_state, opt_state))


def _put(leaves: Sequence[Array], places: Sequence[int], new: Sequence[Array]) -> list[Array]:
    """The leaves with those at `places` replaced."""
    given = dict(zip(places, new, strict=True))
    return [given.get(i, leaf) for i, leaf in enumerate(leaves)]


def step(pieces: Pieces, separate: Separate, state: State, tokens: Array, targets: Array) -> tuple[State, Array]:
    """The state after one step and the loss before it; `state.params["h"]` is a list."""
    leaves = Leaves(state, separate, tokens)
    params, places = state.params, leaves.places
    x, pull_embed = pieces.embed(params, tokens)
    kept = []
    for n, layer in enumerate(params["h"]):
        with jax.named_scope(f"h.{n}"):
            x, keeps = pieces.keep(layer, x)
        kept.append(keeps)
    loss, from_head, dx = pieces.head(params, x, targets)
    head = {key: places[key] for key in pieces.head_keys if key != "wte"}
    dx, now = leaves.consume(head, {key: from_head[key] for key in head}, (dx, kept.pop()))
    for n in reversed(range(len(params["h"]))):
        with jax.named_scope(f"h.{n}"):
            grads, dx = pieces.pull(params["h"][n], now, dx)
            dx, now = leaves.consume(places["h"][n], grads, (dx, kept.pop() if kept else ()))
    grads = pieces.add(from_head, pull_embed(dx))
    leaves.consume({key: places[key] for key in grads}, grads, ())
    return leaves.finish(), loss
