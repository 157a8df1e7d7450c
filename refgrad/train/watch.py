"""Stop where training has gone wrong: a loss or gradient that is no finite number, or a loss that jumps.

A jump is a loss of more than `spike` times the median of the last `WINDOW` losses, once there are `FEWEST` of them.
Either stops before the next checkpoint, and names the parameter concerned: one that holds no finite numbers itself, or
else the first, in the order of the backward pass, whose gradient does not; for a jump, the one with the largest share
of ‖g‖².
"""

import math
import statistics
from collections import deque
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refgrad.models._inputs import path_name
from refgrad.train.measures import Measures
from refgrad.train.optimiser import State

WINDOW, FEWEST = 100, 20


class Stopped(Exception):
    """Training that cannot go on: what happened, where, and what is still good."""


class Watch:
    """Holds each step's measures against those before."""

    def __init__(self, spike: float, losses: Iterable[float]) -> None:
        """`spike` medians are too many, 0 for any; `losses` are those before, of which the last count."""
        self._spike, self._losses = spike, deque(losses, WINDOW)

    def wrong(self, loss: float, norm: float) -> str | None:
        """What is wrong with a step of these measures; None where nothing is, and the loss then counts."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(norm):
            return f"the loss is {loss:.4f}, but the gradients' norm is {norm}"
        if self._spike and len(self._losses) >= FEWEST:
            median = statistics.median(self._losses)
            if loss > self._spike * median:
                return (
                    f"the loss is {loss:.4f}, more than {self._spike:g} times the median of the last "
                    f"{len(self._losses)}, {median:.4f} (train.spike)"
                )
        self._losses.append(loss)
        return None


def concerned(state: State, measures: Measures) -> str:
    """The parameter that a wrong step is about, in a sentence."""
    squares = dict(backward_order(measures.squares))
    if not math.isfinite(float(measures.loss)):  # then the state is still that before the step
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
            if bad := int((~jnp.isfinite(leaf)).sum()):
                return f"{path_name(path)} holds {bad:,} numbers that are not finite"
    if not math.isfinite(float(measures.norm)):
        names = [name for name, value in squares.items() if not math.isfinite(value)]
        which = f"all {len(names)} gradients are" if len(names) == len(squares) else f"{len(names)} gradients are"
        return f"{which} not finite, first, in the order of the backward pass, that of {names[0]}"
    total = sum(squares.values())
    name = max(squares, key=squares.__getitem__)
    return f"the largest gradient is that of {name}, {squares[name] / total:.0%} of ‖g‖²"


def backward_order(squares: Any) -> list[tuple[str, float]]:
    """Σ g² by parameter, in the order in which the backward pass makes the gradients; each layer of stacked ones."""
    found: list[tuple[tuple[int, int], str, float]] = []
    for path, value in jax.tree_util.tree_leaves_with_path(squares):
        name, numbers = path_name(path), np.asarray(value)
        parts = name.split(".")
        for n, number in enumerate(numbers.ravel()):
            if parts[0] != "h":
                found.append(((2 if parts[0] in ("wte", "wpe") else 0, 0), name, float(number)))
            elif numbers.ndim:
                found.append(((1, -n), f"{name}, layer {n}", float(number)))
            else:
                found.append(((1, -int(parts[1])), name, float(number)))
    return [(name, number) for _, name, number in sorted(found, key=lambda one: one[0])]
