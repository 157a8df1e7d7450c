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
from refgrad.train.update_in_backward.layers import Pieces, apart, runtime_one
from refgrad.train.update_in_backward.measures import Measures, measures, unless_finite
from refgrad.train.update_in_backward.per_leaf import Separate

Mine = tuple[list[Array], list[Array]]


class Leaves:
    """A state's leaves by their places: those before the step, and those that it has made."""

    def __init__(self, state: State, separate: Separate, tokens: Array, measured: bool) -> None:
        self.separate, self.one, self.measured = separate, runtime_one(tokens), measured
        self.scale: Callable[[Any], Any] = lambda grads: grads
        self.choose: Callable[[Any, Any], Any] = lambda new, old: new
        self.params, self._params = jax.tree.flatten(state.params)
        self.opt_state, self._opt_state = jax.tree.flatten(state.opt_state)
        self._new: Mine = list(self.params), list(self.opt_state)
        self.places = jax.tree.unflatten(self._params, range(len(self.params)))
        self.squares: list[Any] = [None] * len(self.params)

    def consume(self, group: Any, grads: Any, after: Any) -> Any:
        """Update the leaves at those places of `group`, a mapping, that have gradients; returns `after` then."""
        places = jax.tree.leaves({key: group[key] for key in grads})
        owned = self.separate.owned(places)

        def body(grads: list[Array], carry: tuple[Mine, list[Array]]) -> tuple[Mine, list[Array]]:
            return self.updated(self.separate, places, owned, grads, carry[0]), self.measure(grads)

        with jax.named_scope("update"):
            mine = [self.params[i] for i in places], [self.opt_state[i] for i in owned]
            empty = [jnp.zeros((), jnp.float32)] * (len(places) if self.measured else 0)
            (mine, squares), after = apart(self.one, body, jax.tree.leaves(grads), (mine, empty), after)
        self.replace(places, owned, mine)
        self.note(places, squares)
        return after

    def measure(self, grads: Sequence[Array]) -> list[Array]:
        """Each gradient's Σ g², where the step is measured; else nothing."""
        return [square(g).astype(jnp.float32) for g in grads] if self.measured else []

    def note(self, places: Sequence[int], squares: Sequence[Array]) -> None:
        """Enter what `measure` made of the gradients at those places."""
        for place, value in zip(places if self.measured else (), squares, strict=True):
            self.squares[place] = value

    def updated(
        self,
        separate: Separate,
        places: Sequence[int],
        owned: Sequence[int],
        grads: list[Array],
        mine: Mine,
        read: Mapping[int, Array] = MappingProxyType({}),
    ) -> Mine:
        """What becomes of `mine`, the parameters at `places` and the state leaves `owned`, by these gradients.

        `read` are state leaves that no gradient changes, in the place of the whole ones.
        """
        params = _put(self.params, places, mine[0])
        opt_state = _put(_put(self.opt_state, list(read), list(read.values())), owned, mine[1])
        return self.choose(separate.update(dict(zip(places, self.scale(grads), strict=True)), params, opt_state), mine)

    def replace(self, places: Sequence[int], owned: Sequence[int], mine: Mine) -> None:
        """Enter new leaves."""
        self._new = _put(self._new[0], places, mine[0]), _put(self._new[1], owned, mine[1])

    def finish(self, loss: Array) -> tuple[State, Array | Measures]:
        """The new state, with what no gradient changes: counts, schedules, keys; and the loss, or all measures."""
        shared = self.separate.shared
        old = [], [self.opt_state[i] for i in shared]
        new = self.separate.update({}, self.params, self.opt_state, shared=True)
        self.replace([], shared, self.choose(new, old))
        params, opt_state = self._new
        state = State(jax.tree.unflatten(self._params, params), jax.tree.unflatten(self._opt_state, opt_state))
        return state, measures(loss, jax.tree.unflatten(self._params, self.squares)) if self.measured else loss


def _put(leaves: Sequence[Array], places: Sequence[int], new: Sequence[Array]) -> list[Array]:
    """The leaves with those at `places` replaced."""
    given = dict(zip(places, new, strict=True))
    return [given.get(i, leaf) for i, leaf in enumerate(leaves)]


def step(
    pieces: Pieces,
    separate: Separate,
    clip_norm: float | None,
    measured: bool,
    state: State,
    tokens: Array,
    targets: Array,
) -> tuple[State, Array | Measures]:
    """The state after one step and the loss before it, or all measures; `state.params["h"]` is a list."""
    leaves = Leaves(state, separate, tokens, measured)
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

    norm = None
    if clip_norm is not None:
        norm, kept = norm_by_list(pieces, leaves.one, params["h"], kept, dx, ends)
        leaves.scale = partial(scaled, norm=norm, limit=clip_norm)
    if measured:
        leaves.choose = unless_finite(loss if norm is None else loss + norm)
    dx, now = leaves.consume(places, pieces.only_head(from_head), (dx, kept.pop()))
    for n in reversed(range(len(params["h"]))):
        with jax.named_scope(f"h.{n}"):
            grads, dx = pieces.pull(params["h"][n], now, dx)
            dx, now = leaves.consume(places["h"][n], grads, (dx, kept.pop() if kept else ()))
    leaves.consume(places, pieces.only_embed(ends(dx)), ())
    return leaves.finish(loss)
