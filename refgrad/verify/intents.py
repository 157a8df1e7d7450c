"""Rules that differ from the derivative on purpose. Each intention is a reference that the rule is held to in full.

>>> import jax
>>> import jax.numpy as jnp
>>> from refgrad.verify import check, intents
>>> clipped = jax.custom_vjp(lambda x: x)
>>> clipped.defvjp(lambda x: (x, None), lambda _, dy: (jnp.clip(dy, -0.5, 0.5),))
>>> check(clipped, jnp.ones(3), intent=intents.clip(-0.5, 0.5)).ok
True

An intention stands for what many rules mean in the same way; for any other, `reference=` takes a function with the
meant derivative, and `reference_vjp=` one that returns the meant cotangents.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import lax

from refgrad.verify.subject import Flat, pullback

__all__ = ["Intent", "clip", "finite", "reversal", "stop", "straight_through"]

Pull = Callable[[Sequence, Sequence, Sequence], list]  # (floats, others, cotangents) → cotangents of the floats


@dataclasses.dataclass(frozen=True)
class Intent:
    """A meant gradient: that of a `reference`, given `cotangents`, or the true one up to a `bound`.

    Attributes:
      name: its name.
      reference: the function without its rules → a function with the meant derivative.
      cotangents: the function without its rules → the meant pullback.
      bound: the largest slope that the rule may return.

    Example:
      >>> from refgrad.verify import intents
      >>> intents.finite(1e6).bound
      1000000.0
    """

    name: str
    reference: Callable[[Flat], Flat] | None = None
    cotangents: Callable[[Flat], Pull] | None = None
    bound: float | None = None

    def __repr__(self) -> str:
        return self.name


def known_intent(intent: Intent | None) -> Intent | None:
    """Return `intent`. Raises ValueError for anything that is not an intention, or None."""
    if intent is not None and not isinstance(intent, Intent):
        way = "intents.straight_through, stop, clip(lo, hi), reversal(scale) or finite(bound)"
        raise ValueError(f"intent is {intent!r}, but must be a value of refgrad.verify.intents: {way}")
    return intent


def _straight_through(plain: Flat) -> Flat:
    """y ↦ x + stop_gradient(y − x), for each output and the first argument of its shape."""

    def through(diff: Sequence, rest: Sequence) -> tuple[list, list]:
        values, others = plain(diff, rest)
        return [_passed(y, diff) for y in values], others

    return through


def _passed(y, diff: Sequence):
    x = next((x for x in diff if jnp.shape(x) == y.shape), None)
    if x is None:
        raise ValueError(
            f"straight_through returns the cotangent of an output as that of an argument of its shape, but no "
            f"differentiated argument has shape {y.shape}: state the meant gradient with reference= instead"
        )
    x = jnp.asarray(x).astype(y.dtype)
    return x + lax.stop_gradient(y - x)


straight_through = Intent("straight_through", reference=_straight_through)
"""The cotangent passes as if the function were the identity; other arguments get 0 (quantisation, sign, sampling)."""

stop = Intent(
    "stop",
    reference=lambda plain: lambda diff, rest: _each(lax.stop_gradient, *plain(diff, rest)),
)
"""No gradient flows: every cotangent is 0."""


def reversal(scale: float = 1.0) -> Intent:
    """Return the intention of a gradient reversal layer: −`scale` times the derivative.

    Args:
      scale: the factor without its sign.

    Returns:
      The intention.

    Raises:
      ValueError: for a factor that is not finite.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from refgrad.verify import check, intents
      >>> reverse = jax.custom_vjp(lambda x: x)
      >>> reverse.defvjp(lambda x: (x, None), lambda _, dy: (-2 * dy,))
      >>> check(reverse, jnp.ones(3), intent=intents.reversal(2), properties=["accuracy"]).ok
      True
    """
    _finite("reversal", "scale", scale)

    def reversed_(plain: Flat) -> Flat:
        flip = lambda y: lax.stop_gradient((1 + scale) * y) - scale * y  # noqa: E731
        return lambda diff, rest: _each(flip, *plain(diff, rest))

    return Intent(f"reversal({scale})", reference=reversed_)


def clip(low: float, high: float) -> Intent:
    """Return the intention of gradient clipping: each entry of the true cotangents, clipped to [`low`, `high`].

    Args:
      low: the lower bound.
      high: the upper bound.

    Returns:
      The intention.

    Raises:
      ValueError: for a lower bound above the upper one.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from refgrad.verify import check, intents
      >>> clipped = jax.custom_vjp(lambda x: x)
      >>> clipped.defvjp(lambda x: (x, None), lambda _, dy: (jnp.clip(dy, -0.5, 0.5),))
      >>> check(clipped, jnp.ones(3), intent=intents.clip(-0.5, 0.5), properties=["accuracy"]).ok
      True
    """
    if not low <= high:
        raise ValueError(f"clip({low}, {high}): the first bound must not be above the second")

    def clipped(plain: Flat) -> Pull:
        return lambda diff, rest, cts: [jnp.clip(g, low, high) for g in pullback(plain)(diff, rest, cts)[1]]

    return Intent(f"clip({low}, {high})", cotangents=clipped)


def finite(bound: float) -> Intent:
    """Return the intention of a gradient that stays finite where the true slope does not.

    For a unit cotangent: the true one where that is at most `bound` in magnitude; elsewhere any number up to `bound`.

    Args:
      bound: the largest slope that the rule may return.

    Returns:
      The intention.

    Raises:
      ValueError: for a bound that is not positive and finite.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from refgrad.verify import check, intents
      >>> root = jax.custom_vjp(jnp.sqrt)
      >>> root.defvjp(lambda x: (jnp.sqrt(x), x), lambda x, dy: (dy * jnp.minimum(0.5 / jnp.sqrt(x), 1e6),))
      >>> check(root, jnp.array([0.0, 4.0]), intent=intents.finite(1e6), properties=["accuracy"]).ok
      True
    """
    if not (math.isfinite(bound) and bound > 0):
        raise ValueError(f"finite({bound}): the bound is the largest slope that the rule may return, such as 1e6")
    return Intent(f"finite({bound:g})", bound=float(bound))


def _each(change: Callable, values: list, others: list) -> tuple[list, list]:
    return [change(y) for y in values], others


def _finite(name: str, parameter: str, value: float) -> None:
    if not math.isfinite(value):
        raise ValueError(f"{name}({value}): {parameter} must be a finite number")
