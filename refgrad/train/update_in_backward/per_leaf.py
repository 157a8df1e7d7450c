"""An optimiser's update split by leaf: each new parameter from its own gradient, as soon as that exists.

The whole transformation is traced once, on the full tree, so that masks, labels, counts and noise keys are those of the
ordinary step. Only the equations that a group of leaves needs are then evaluated, with the group's own gradients. This
equals the ordinary update if no new leaf depends on two gradients, which `per_leaf_update` proves or refuses.
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
class PerLeafUpdate:
    """An update that treats each gradient leaf alone, as a program of flat leaves."""

    program: ClosedJaxpr
    """Gradients, parameters, the transformation's state → new parameters, new state."""
    owners: tuple[int | None, ...]
    """For each leaf of the state, the gradient leaf that its new value depends on, or None."""

    @property
    def leaves(self) -> int:
        """The number of gradient leaves."""
        return len(self.program.in_avals) - len(self.program.out_avals)

    def owned(self, group: Collection[int]) -> list[int]:
        """Return the state leaves whose new values depend on these gradient leaves."""
        return [i for i, owner in enumerate(self.owners) if owner in group]

    @property
    def shared(self) -> list[int]:
        """The state leaves that no gradient changes: counts, schedules, keys."""
        return [i for i, owner in enumerate(self.owners) if owner is None]

    def update(
        self, grads: dict[int, Array], params: Sequence[Array], opt_state: Sequence[Array], shared: bool = False
    ) -> tuple[list[Array], list[Array]]:
        """Return the new parameters of the leaves whose gradients are given, and the new state that they own, in order.

        Args:
            grads: Gradients by the index of their leaf.
            params: All parameters before the step.
            opt_state: All leaves of the transformation's state before the step.
            shared: Return the new shared state instead of the owned.
        """
        inputs = [*(grads.get(i) for i in range(self.leaves)), *params, *opt_state]
        states = set(self.shared if shared else self.owned(grads))
        wanted = [*(i in grads for i in range(self.leaves)), *(i in states for i in range(len(self.owners)))]
        new = evaluate(self.program, inputs, wanted)
        return [new[i] for i in sorted(grads)], [new[self.leaves + i] for i in sorted(states)]


def per_leaf_update(tx: Any, state: State, way_out: str) -> PerLeafUpdate:
    """Return the update of `tx` split by leaf, for states like this one.

    Args:
        tx: An optax transformation.
        state: A state, whose leaves may be abstract.
        way_out: The advice that an error ends with.

    Raises:
        ValueError: A new leaf depends on two or more gradients. The message names the leaf, the gradients, and the
            line of the transformation that mixes them.
    """
    program = jax.make_jaxpr(lambda grads, state: update(tx, grads, state))(state.params, state)
    names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(state.params)]
    outputs = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    inputs = [1 << i if i < len(names) else 0 for i in range(len(program.in_avals))]
    sets = dependence(program, inputs)
    for name, gradients in zip(outputs, sets, strict=True):
        if gradients.bit_count() > 1:
            mixed = [leaf for i, leaf in enumerate(names) if gradients >> i & 1]
            others = f" and {len(mixed) - 3} more" if len(mixed) > 3 else ""
            raise ValueError(
                f"tx mixes gradients at {mixing(program, inputs)}: the new {name} depends on those of "
                f"{', '.join(mixed[:3])}{others}, so that it cannot be updated before they exist: {way_out}"
            )
    owners = [gradients.bit_length() - 1 if gradients else None for gradients in sets[len(names) :]]
    return PerLeafUpdate(program, tuple(owners))
