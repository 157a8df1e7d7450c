"""Points on other branches: arguments drawn in the manner of the given ones, in four ways, from a fixed seed."""

from collections.abc import Iterator, Sequence

import numpy as np

from refgrad.verify.numbers import generator

SEED = 16


def points(arguments: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Yield arguments without end: normal ones of the given size, the given ones permuted, scaled, normal ones far out.

    A permutation keeps each leaf within its domain where all its entries share one; a factor of ½ to 2 keeps signs.
    """
    rng = generator(SEED, 0)
    while True:
        for draw in (_normal, _permuted, _scaled, _far):
            yield [np.where(np.isfinite(x), draw(x, rng), x) for x in arguments]


def _normal(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    finite = x[np.isfinite(x)]
    size = float(np.sqrt(np.mean(finite**2))) if finite.size else 0.0
    return rng.standard_normal(x.shape) * (size or 1.0)


def _permuted(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    moved = rng.permutation(x.ravel()).reshape(x.shape)
    return moved * (1 + 0.01 * rng.uniform(-1, 1, x.shape))


def _scaled(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return x * 2.0 ** rng.uniform(-1, 1, x.shape)


def _far(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _normal(x, rng) * 2.0 ** rng.uniform(-4, 4, x.shape)
