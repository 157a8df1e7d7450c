"""Candidate arguments: drawn where floating point is weak, then moved by units in the last place and by exponents."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

WIDEST = 8  # entries are 0 or from 2⁻⁸ to 2⁸ in magnitude
NEAR = 6  # exponents of half of the draws: most functions saturate, cancel or lose digits within them


class Point(NamedTuple):
    """The differentiated leaves and the cotangents of the float outputs, in their own dtypes."""

    diff: list[np.ndarray]
    cts: list[np.ndarray]


class PointSource:
    """Source of points: it draws them around the given arguments and moves them, from one random generator."""

    def __init__(self, rng: np.random.Generator, diff: Sequence[Any], outputs: Sequence[Any]) -> None:
        self.rng = rng
        self.given = [np.asarray(x) for x in diff]
        self.types = [*((x.shape, x.dtype) for x in self.given), *((y.shape, y.dtype) for y in outputs)]

    def first(self) -> Point:
        """Return the given arguments, under random cotangents."""
        drawn = [self._normal(shape, dtype).astype(dtype) for shape, dtype in self.types[len(self.given) :]]
        return Point(self.given, drawn)

    def draw(self) -> Point:
        """Return random leaves of several exponents, one in two with ties, neighbours, cancellation or special values.

        Every leaf is drawn anew in one point of three; in the others some leaves keep their given values.
        """
        keep = self.rng.random() * (self.rng.random() < 2 / 3)
        leaves = [
            self.given[k] if k < len(self.given) and self.rng.random() < keep else self._leaf(k)
            for k in range(len(self.types))
        ]
        return self._point(leaves)

    def move(self, point: Point, other: Point) -> Point:
        """Return a neighbour of a point: one or two leaves changed in some of their entries, or as another point's."""
        leaves = [*point.diff, *point.cts]
        if self.rng.random() < 0.25:
            k = self.rng.integers(len(leaves))
            leaves[k] = [*other.diff, *other.cts][k]
        for _ in range(self.rng.integers(1, 3)):
            k = self.rng.integers(len(leaves))
            leaves[k] = self._changed(leaves[k], MOVES[self.rng.integers(len(MOVES))])
        return self._point(leaves)

    def _point(self, leaves: list[np.ndarray]) -> Point:
        leaves = [self._inside(x, k) for k, x in enumerate(leaves)]
        return Point(leaves[: len(self.given)], leaves[len(self.given) :])

    def _inside(self, x: np.ndarray, k: int) -> np.ndarray:
        """Return `x` with entries below the least magnitude as 0, and those above the greatest one at that."""
        if not x.size or (k < len(self.given) and x is self.given[k]):
            return x
        flat = np.ascontiguousarray(x).reshape(-1).view(jnp.finfo(x.dtype).dtype)
        most = 2.0 ** _exponents(x.dtype)
        size = np.abs(flat.astype(np.float64))
        kept = np.where(size < 1 / most, 0.0, np.clip(flat.astype(np.float64), -most, most))
        return kept.astype(flat.dtype).view(x.dtype).reshape(x.shape)

    def _leaf(self, k: int) -> np.ndarray:
        shape, dtype = self.types[k]
        kind, rng = self.rng.integers(4), self.rng
        if kind == 0 and k < len(self.given):
            x = self.given[k].astype(np.result_type(dtype, np.float64)) * 2.0 ** self._exponent(dtype)
        elif kind == 1:
            x = self._normal(shape, dtype) * 2.0 ** rng.uniform(-1, 1, shape) * 2.0 ** self._exponent(dtype)
        elif kind == 2:
            x = self._normal(shape, dtype) * 2.0 ** rng.integers(-NEAR, NEAR, shape)
        else:
            x = self._normal(shape, dtype) * 2.0 ** rng.integers(-3, 4)
        with np.errstate(all="ignore"):
            x = np.asarray(x).astype(dtype)
        return self._changed(x, FEATURES[rng.integers(len(FEATURES))]) if rng.random() < 0.5 else x

    def _normal(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        x = self.rng.standard_normal(shape)
        return x + 1j * self.rng.standard_normal(shape) if jnp.issubdtype(dtype, jnp.complexfloating) else x

    def _exponent(self, dtype: Any) -> int:
        """Return an exponent: half of the time a near one."""
        most = _exponents(dtype)
        most = most if self.rng.random() < 0.5 else min(most, NEAR)
        return int(self.rng.integers(-most, most + 1))

    def _changed(self, x: np.ndarray, change: Callable[[np.random.Generator, np.ndarray], np.ndarray]) -> np.ndarray:
        """Return `x` with `change` applied to some of its entries; the parts of complex ones count as two."""
        if not x.size:
            return x
        real = jnp.finfo(x.dtype).dtype
        flat = np.ascontiguousarray(x).reshape(-1).view(real).copy()
        chosen = self._some(x.shape, flat.size)
        with np.errstate(all="ignore"):
            flat[chosen] = change(self.rng, np.where(np.isfinite(flat), flat, flat.dtype.type(1)))[chosen]
        return flat.view(x.dtype).reshape(x.shape)

    def _some(self, shape: tuple[int, ...], size: int) -> np.ndarray:
        """Return a mask of the entries to be changed: one, a slice along an axis, a random half, or all."""
        kind, rng = self.rng.integers(4), self.rng
        mask = np.zeros(size, bool)
        if kind == 0 or (kind == 1 and not shape):
            mask[rng.integers(size)] = True
        elif kind == 1:
            whole = np.zeros(shape, bool)
            axis = int(rng.integers(len(shape)))
            np.moveaxis(whole, axis, 0)[rng.integers(shape[axis])] = True
            mask[:] = np.repeat(whole.reshape(-1), size // whole.size)
        else:
            mask |= rng.random(size) < 0.5 if kind == 2 else True
        return mask


def _exponents(dtype: Any) -> int:
    """Return the greatest exponent of an entry: beyond it a product of a few arguments overflows, for whoever asks."""
    return min(WIDEST, int(jnp.finfo(dtype).maxexp) // 2)


def step(x: np.ndarray, ulps: Any) -> np.ndarray:
    """Return `x` moved by a number of units in the last place, across 0 too."""
    bits = np.dtype(f"i{x.dtype.itemsize}")
    low = int(np.iinfo(bits).min)
    raw = x.view(bits).astype(np.int64)
    ordered = np.where(raw < 0, low - raw, raw) + ulps
    back = np.where(ordered < 0, low - ordered, ordered)
    return back.astype(bits).view(x.dtype)


def _ulps(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    digits = jnp.finfo(x.dtype).nmant
    return step(x, rng.integers(-1, 2, x.shape) * 2 ** int(rng.integers(0, digits)))


def _one_ulp(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    return step(x, rng.integers(-2, 3, x.shape))


def _binade(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    return (x.astype(np.float64) * 2.0 ** int(rng.integers(-4, 5))).astype(x.dtype)


def _negated(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    return -x


def _equal(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    return np.full_like(x, x[rng.integers(x.size)])


def _neighbours(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    return _one_ulp(rng, _equal(rng, x))


def _cancelling(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """Return the other entries in another order and of the other sign, a few units in the last place away."""
    return _one_ulp(rng, -rng.permutation(x))


def _special(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    large = 2.0 ** _exponents(x.dtype)
    values = [0.0, -0.0, 1.0, -1.0, 0.5, 2.0, float(jnp.finfo(x.dtype).eps), 1 / large, large]
    return rng.choice(values, x.shape).astype(x.dtype)


def _shifted(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """Return the entries far from 0, all by the same offset."""
    offset = 2.0 ** rng.integers(-3, min(12, _exponents(x.dtype))) * rng.choice([-1, 1])
    return (x.astype(np.float64) + offset).astype(x.dtype)


def _fresh(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    return (rng.standard_normal(x.shape) * 2.0 ** int(rng.integers(-3, 4))).astype(x.dtype)


FEATURES = (_equal, _neighbours, _cancelling, _special, _shifted, _binade)
MOVES = (*FEATURES, _ulps, _ulps, _one_ulp, _binade, _fresh, _fresh, _negated)
