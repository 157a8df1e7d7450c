"""An optimiser's update taken apart by leaves: each new parameter from its own gradient, as soon as that exists.

The whole transformation is traced once, on the full tree, so that masks, labels, counts and noise keys are what they
are in the ordinary step; then only what makes a group's new leaves is evaluated, with no gradient but the group's own.
That is the ordinary update exactly where no new leaf depends on two gradients, which `separate` proves or refuses.
"""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import jax
from jax import Array
from jax.extend.core import ClosedJaxpr

from refgrad.jaxpr.dependence import dependence, evaluate, mixing
from refgrad.models.inputs import path_name
from refgrad.train.optimiser import State, update


@dataclasses.dataclass(frozen=True)
class Separate:
    """An update that treats each gradient leaf alone, as a program of flat leaves."""

    program: ClosedJaxpr
    """Gradients, parameters, the transformation's state → new parameters, new state."""
    owners: tuple[int | None, ...]
    """For each leaf of the state, the gradient leaf that its new value depends on; None for those on none."""

    @property
    def leaves(self) -> int:
        """How many gradient leaves there are."""
        return len(self.program.in_avals) - len(self.program.out_avals)

    def owned(self, group: Collection[int]) -> list[int]:
        """The state leaves that belong to these gradient leaves."""
        return [i for i, owner in enumerate(self.owners) if owner in group]

    @property
    def shared(self) -> list[int]:
        """The state leaves that no gradient changes: counts, schedules, keys."""
        return [i for i, owner in enumerate(self.owners) if owner is None]

    def update(
        self, grads: dict[int, Array], params: Sequence[Array], opt_state: Sequence[Array], shared: bool = False
    ) -> tuple[list[Array], list[Array]]:
        """The new parameters of the leaves whose gradients are given, and the new state that they own, in order.

        `params` and `opt_state` are all the leaves before the step. With `shared`, the new shared state instead of the
        owned comes second.
        """
        inputs = [*(grads.get(i) for i in range(self.leaves)), *params, *opt_state]
        ours = set(self.shared if shared else self.owned(grads))
        wanted = [*(i in grads for i in range(self.leaves)), *(i in ours for i in range(len(self.owners)))]
        new = evaluate(self.program, inputs, wanted)
        return [new[i] for i in sorted(grads)], [new[self.leaves + i] for i in sorted(ours)]


def separate(tx: Any, state: State, way_out: str) -> Separate:
    """`tx` taken apart for states like this one, whose leaves may be abstract.

    Raises ValueError where a new leaf depends on two gradients or more, naming the leaf, the gradients, the line of the
    transformation that mixes them, and `way_out`.
    """
    program = jax.make_jaxpr(lambda grads, state: update(tx, grads, state))(state.params, state)
    names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(state.params)]
    outputs = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    inputs = [1 << i if i < len(names) else 0 for i in range(len(program.in_avals))]
    sets = dependence(program, inputs)
    for name, found in zip(outputs, sets, strict=True):
        if found.bit_count() > 1:
            mixed = [leaf for i, leaf in enumerate(names) if found >> i & 1]
            more = f" and {len(mixed) - 3} more" if len(mixed) > 3 else ""
            raise ValueError(
                f"tx mixes gradients at {mixing(program, inputs)}: the new {name} depends on those of "
                f"{', '.join(mixed[:3])}{more}, so that it cannot be updated before they exist: {way_out}"
            )
    owners = [found.bit_length() - 1 if found else None for found in sets[len(names) :]]
    return Separate(program, tuple(owners))
