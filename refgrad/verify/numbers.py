"""Comparing leaves: one measure of error for the whole project."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np

T = TypeVar("T")


class Difference(NamedTuple):
    """The worst entry of a comparison: its error relative to the largest expected entry, and where it stands."""

    error: float
    index: tuple[int, ...] | None
    got: complex | None
    expected: complex | None

    def cells(self) -> dict[str, Any]:
        """The fields of a `Row` that it fills."""
        return self._asdict()


def difference(got: np.ndarray, expected: np.ndarray, skip: np.ndarray | None = None) -> Difference:
    """max|got − expected| / max|expected|, absolute where everything expected is 0; entries in `skip` do not count.

    Equal infinities and NaN where NaN is expected agree; any other entry that is not finite is infinitely wrong.
    """
    if got.size == 0:
        return Difference(0.0, None, None, None)
    with np.errstate(all="ignore"):
        finite = np.isfinite(expected)
        scale = np.max(np.abs(expected), where=finite, initial=0.0) or 1.0
        gap = np.abs(got - expected)
        same = (got == expected) | (np.isnan(got) & np.isnan(expected))
        gap = np.where(same, 0.0, np.where(np.isfinite(gap), gap / scale, np.inf))
    if skip is not None:
        gap = np.where(skip, 0.0, gap)
    at = np.unravel_index(int(np.argmax(gap)), gap.shape)
    return Difference(float(gap[at]), tuple(map(int, at)), got[at].item(), expected[at].item())


def worst(differences: Iterable[Difference]) -> Difference:
    """The one with the largest error."""
    return max(differences, key=lambda d: d.error)


def to_wide(x: Any) -> np.ndarray:
    """An array on the host in float64 (complex128): exact for every floating dtype of JAX."""
    x = np.asarray(x)
    return x.astype(np.complex128 if jnp.issubdtype(x.dtype, np.complexfloating) else np.float64)


def generator(*seeds: int) -> np.random.Generator:
    """Random numbers of this package's own: never those of `default_rng(seed)`, which the arguments may be made of.

    A cotangent equal to the argument is no random one: the gradient of a normalised vector along itself is 0.
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


def sample(choices: Sequence[T], most: int) -> list[T]:
    """At most `most` of the choices, evenly spread, the first and the last among them."""
    if len(choices) <= most:
        return list(choices)
    return [choices[round(k * (len(choices) - 1) / (most - 1))] for k in range(most)]
