"""The values of traced arguments, taken by a debug callback that no transformation multiplies or differentiates."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.custom_batching import custom_vmap


def tap(deliver: Callable[..., None], leaves: Sequence[Any]) -> None:
    """Call `deliver(*values)` whenever the program that is being traced runs.

    Under `vmap` it is called once, with the values of the first lane, in place of once per lane.
    """

    @custom_vmap
    def send(*xs):
        jax.debug.callback(deliver, *xs)
        return ()

    @send.def_vmap
    def _first_lane(size, batched, *xs):
        if size:
            send(*(x[0] if b else x for x, b in zip(xs, batched, strict=True)))
        return (), ()

    send(*map(lax.stop_gradient, leaves))
