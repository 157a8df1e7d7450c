"""Comparing leaves: one measure of error for the whole project."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

T = TypeVar("T")
NEIGHBOURS = 3  # sets of arguments at which the movement of a truth is measured
NOISE = 8  # last places of a function's own scale, up to which what cancels to 0 in truth is left over


class Difference(NamedTuple):
    """The worst entry of a comparison: its error relative to the largest expected entry, and its index."""

    error: float
    index: tuple[int, ...] | None
    got: complex | None
    expected: complex | None

    def cells(self) -> dict[str, Any]:
        """The fields of a `Row` that it fills."""
        return self._asdict()


def difference(
    got: np.ndarray, expected: np.ndarray, skip: np.ndarray | None = None, scale: float | None = None
) -> Difference:
    """max|got − expected| / max|expected|, absolute where everything expected is 0; entries in `skip` do not count.

    Equal infinities and NaN where NaN is expected agree; any other entry that is not finite is infinitely wrong.
    """
    if got.size == 0:
        return Difference(0.0, None, None, None)
    gap = errors(got, expected) / ((largest(expected) or 1.0) if scale is None else scale)
    return at_worst(gap if skip is None else np.where(skip, -1.0, gap), got, expected, gap)


def compared(
    got: np.ndarray, expected: np.ndarray, allowed: np.ndarray, scale: float, skip: np.ndarray | None = None
) -> tuple[Difference, float]:
    """The entry whose relative error is the largest part of what is allowed there, and what that is."""
    if got.size == 0:
        return Difference(0.0, None, None, None), 0.0
    gap = errors(got, expected) / scale
    allowed = np.broadcast_to(allowed, gap.shape)
    found = at_worst(gap / allowed if skip is None else np.where(skip, -1.0, gap / allowed), got, expected, gap)
    return found, float(np.min(allowed) if found.index is None else allowed[found.index])


def at_worst(rank: np.ndarray, got: np.ndarray, expected: np.ndarray, error: np.ndarray) -> Difference:
    """The comparison at the entry that ranks highest; of none where all rank below 0."""
    at = np.unravel_index(int(np.argmax(rank)), rank.shape)
    if rank[at] < 0:
        return Difference(0.0, None, None, None)
    return Difference(float(error[at]), tuple(map(int, at)), got[at].item(), expected[at].item())


def errors(got: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """|got − expected| entry by entry: 0 where both are the same infinity or NaN, ∞ where only one is."""
    with np.errstate(all="ignore"):
        gap = np.abs(got - expected)
        same = (got == expected) | (np.isnan(got) & np.isnan(expected))
        return np.where(same, 0.0, np.where(np.isnan(gap), np.inf, gap))


def largest(x: np.ndarray) -> float:
    """The largest finite |entry|, 0 if none is finite."""
    with np.errstate(invalid="ignore"):
        return float(np.max(np.abs(x), where=np.isfinite(x), initial=0.0))


def scaled(size: float, own: float, eps: float) -> float:
    """The scale of errors: `size`, or `own` where that has no digits beside it in a precision of `eps`."""
    return size if size > NOISE * eps * own else own or 1.0


def clipped(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The nearest value between two bounds, in either order, real and imaginary parts each by itself."""
    if np.iscomplexobj(low):
        return clipped(np.real(x), np.real(low), np.real(high)) + 1j * clipped(np.imag(x), np.imag(low), np.imag(high))
    return np.clip(x, np.fmin(low, high), np.fmax(low, high))


def to_wide(x: Any) -> np.ndarray:
    """An array on the host in float64 (complex128): exact for every floating dtype of JAX."""
    x = np.asarray(x)
    return x.astype(np.complex128 if jnp.issubdtype(x.dtype, np.complexfloating) else np.float64)


def generator(*seeds: int) -> np.random.Generator:
    """Random numbers of this package's own: never those of `default_rng(seed)`, which the arguments may be made of.

    A cotangent equal to the argument is not a random one: the gradient of a normalised vector along itself is 0.
    """
    return np.random.default_rng((0x726566, *seeds))


def draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Standard normal entries (complex where the dtype is), rounded to `dtype`."""
    x = rng.standard_normal(shape)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        x = x + 1j * rng.standard_normal(shape)
    return np.asarray(x).astype(dtype)


def draws_like(rng: np.random.Generator, avals: Iterable[Any]) -> list[np.ndarray]:
    """One random array for each abstract or concrete one."""
    return [draw(rng, a.shape, a.dtype) for a in avals]


def jitter(x: Any, rng: np.random.Generator) -> jax.Array:
    """`x` with every entry moved by up to four units in the last place, in its own dtype and sharding."""
    factor = 1 + 4 * float(jnp.finfo(x.dtype).eps) * rng.uniform(-1, 1, np.shape(x))
    moved = (to_wide(x) * factor).astype(x.dtype)
    spread = isinstance(x, jax.Array) and len(x.devices()) > 1
    return jax.device_put(moved, x.sharding if spread else None)  # where jnp.asarray compiles a program


def moved_by(moved: Sequence[list[np.ndarray]], leaves: list[np.ndarray]) -> list[np.ndarray]:
    """The largest distance, entry by entry, of leaves at other arguments from those at the given ones, where finite."""
    distances = ([errors(m[i], x) for m in moved] for i, x in enumerate(leaves))
    return [np.max([np.where(np.isfinite(d), d, 0.0) for d in each], axis=0) for each in distances]


def sample(choices: Sequence[T], most: int) -> list[T]:
    """Return at most `most` of the choices, evenly spread, the first and the last among them."""
    if len(choices) <= most:
        return list(choices)
    return [choices[round(k * (len(choices) - 1) / (most - 1))] for k in range(most)]
