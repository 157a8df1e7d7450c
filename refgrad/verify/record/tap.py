"""The values of traced arguments, taken by a debug callback that no transformation multiplies or differentiates."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.custom_batching import custom_vmap
from jax.interpreters import ad

from refgrad.jaxpr.programs import equations


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


def allow_transposition() -> None:
    """Let programs with a tap inside be transposed, as linear solvers do with what they have traced before.

    A tap has no result and so no cotangent. With one, its primitives raise as they do in JAX.
    """
    for eqn in equations(jax.make_jaxpr(lambda x: tap(lambda *_: None, [x]))(0.0)):
        ad.primitive_transposes.setdefault(eqn.primitive, functools.partial(_transpose, eqn.primitive))


def _transpose(primitive: Any, cotangents: Any, *args: Any, **params: Any) -> list[None]:
    given = cotangents if isinstance(cotangents, tuple | list) else [cotangents]
    if any(type(ct) is not ad.Zero for ct in given):
        raise NotImplementedError(
            f"Transpose rule (for reverse-mode differentiation) for '{primitive}' not implemented"
        )
    return [None] * len(args)
