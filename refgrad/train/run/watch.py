"""Stop training that has gone wrong: a loss or gradient that is not finite, or a loss that jumps.

A jump is a loss above `spike` times the median of the last `WINDOW` losses, once there are `FEWEST` of them. Training
stops before the next checkpoint and names a parameter. For a loss, it is the first parameter that is not finite, or
else the one with the largest entry. For a gradient, it is the first one, in the order of the backward pass, that is not
finite. For a jump, it is the parameter whose gradient has the largest share of ‖g‖².
"""

import math
import statistics
from collections import deque
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refgrad.models.gpt2 import Params
from refgrad.models.inputs import path_name
from refgrad.train.optimiser import State
from refgrad.train.update_in_backward.layers import EMBEDDINGS
from refgrad.train.update_in_backward.measures import Measures

WINDOW, FEWEST = 100, 20
ORDER = ("lm_head", "ln_f", "mlp.c_proj", "mlp.c_fc", "ln_2", "attn.c_proj", "attn.c_attn", "ln_1", "wpe", "wte")
LAST = 10**9  # beyond any layer


class Stopped(Exception):
    """Training that cannot go on; the message says what happened, where, and which checkpoint is good."""


class Watch:
    """A comparison of each step's measures with those before."""

    def __init__(self, spike: float, losses: Iterable[float]) -> None:
        """Stop when the loss exceeds `spike` times the running median, 0 disables this; `losses` are those so far."""
        self._spike, self._losses = spike, deque(losses, WINDOW)

    def wrong(self, loss: float, norm: float) -> str | None:
        """Return what is wrong with a step of these measures, or None, and then count the loss."""
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
    """Return a phrase that names the parameter behind a wrong step."""
    squares = dict(backward_order(measures.squares))
    if not math.isfinite(float(measures.loss)):  # then the state is still that before the step
        return _in_parameters(state.params)
    if not math.isfinite(float(measures.norm)):
        names = [name for name, value in squares.items() if not math.isfinite(value)]
        which = f"all {len(names)} gradients are" if len(names) == len(squares) else f"{len(names)} gradients are"
        return f"{which} not finite, first, in the order of the backward pass, that of {names[0]}"
    total = sum(squares.values())
    name = max(squares, key=squares.__getitem__)
    return f"the largest gradient is that of {name}, {squares[name] / total:.0%} of ‖g‖²"


def _in_parameters(params: Params) -> str:
    """Return a phrase that names the first parameter that is not finite, or the one with the largest entry."""
    largest = (0.0, "")
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name, most = path_name(path), float(jnp.max(jnp.abs(leaf)))
        if not math.isfinite(most):
            return f"{name} holds {int((~jnp.isfinite(leaf)).sum()):,} numbers that are not finite"
        largest = max(largest, (most, name))
    return f"all parameters are finite, the largest number, {largest[0]:.3g}, in {largest[1]}"


def backward_order(squares: Any) -> list[tuple[str, float]]:
    """Return Σ g² by parameter, each layer of stacked ones, in the order of the backward pass."""
    ordered: list[tuple[tuple[int, int], str, float]] = []
    for path, value in jax.tree_util.tree_leaves_with_path(squares):
        name, numbers = path_name(path), np.asarray(value)
        kind, layer = name.rsplit(".", 1)[0].removeprefix("h."), name.split(".")[1]
        if name.startswith("h.") and layer.isdigit():
            ordered.append(((-int(layer), ORDER.index(kind.removeprefix(f"{layer}."))), name, float(numbers)))
        elif name.startswith("h."):
            ordered += [((-n, ORDER.index(kind)), f"{name}, layer {n}", float(x)) for n, x in enumerate(numbers)]
        else:
            ordered.append(((1 if kind in EMBEDDINGS else -LAST, ORDER.index(kind)), name, float(numbers)))
    return [(name, number) for _, name, number in sorted(ordered, key=lambda entry: entry[0])]
