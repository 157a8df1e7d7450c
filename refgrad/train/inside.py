"""A training step with the optimiser's update inside the backward pass, over a list of layers."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
from jax import Array

from refgrad.models import gpt2
from refgrad.train.clip import norm_by_list, scaled
from refgrad.train.optimiser import State
from refgrad.train.separate import Separate
from refgrad.train.walk import Pieces, apart, runtime_one

Mine = tuple[list[Array], list[Array]]


class Leaves:
    """A state's leaves by their places: those before the step, and those that it has made."""

    def __init__(self, state: State, separate: Separate, tokens: Array) -> None:
        self.separate, self.one = separate, runtime_one(tokens)
        self.scale: Callable[[Any], Any] = lambda grads: grads
        self.params, self._params = jax.tree.flatten(state.params)
        self.opt_state, self._opt_state = jax.tree.flatten(state.opt_state)
        self._new: Mine = list(self.params), list(self.opt_state)
        self.places = jax.tree.unflatten(self._params, range(len(self.params)))

    def consume(self, group: Any, grads: Any, after: Any) -> Any:
        """Update the leaves at those places of `group`, a mapping, that have gradients; returns `after` then."""
        places = jax.tree.leaves({key: group[key] for key in grads})
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
        return separate.update(dict(zip(places, self.scale(grads), strict=True)), params, opt_state)

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


def step(
    pieces: Pieces, separate: Separate, clip_norm: float | None, state: State, tokens: Array, targets: Array
) -> tuple[State, Array]:
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

    def ends(dx: Array) -> gpt2.Params:
        return pieces.add(from_head, pull_embed(dx))

    if clip_norm is not None:
        norm, kept = norm_by_list(pieces, leaves.one, params["h"], kept, dx, ends)
        leaves.scale = partial(scaled, norm=norm, limit=clip_norm)
    dx, now = leaves.consume(places, pieces.only_head(from_head), (dx, kept.pop()))
    for n in reversed(range(len(params["h"]))):
        with jax.named_scope(f"h.{n}"):
            grads, dx = pieces.pull(params["h"][n], now, dx)
            dx, now = leaves.consume(places["h"][n], grads, (dx, kept.pop() if kept else ()))
    leaves.consume(places, pieces.only_embed(ends(dx)), ())
    return leaves.finish(), loss
