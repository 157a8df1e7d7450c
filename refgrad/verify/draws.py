"""Arrays drawn for arguments that a text describes."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refgrad import _machine
from refgrad.verify.arguments import Spec

DRAWN = 64  # bytes that a check takes for each entry, in float64: the draws, the truth, the results
INSIDE = 0.05  # distance from a bound, relative to it or to 1, so that rounding does not reach it


def values(specs: Sequence[Any], seed: int) -> tuple[Any, ...]:
    """An array for each `Spec`: floats from a standard normal, or within their bounds, integers uniform.

    Literals stay as they are. Deterministic in `seed`. Raises ValueError for more than this machine's memory.
    """
    _check_memory(specs)
    rng = np.random.default_rng(seed)
    return tuple(jax.tree.map(lambda spec: _draw(spec, rng) if isinstance(spec, Spec) else spec, list(specs)))


def _check_memory(specs: Sequence[Any]) -> None:
    """Raise ValueError where a check of these arrays needs more bytes than this machine has."""
    arrays = [spec for spec in jax.tree.leaves(list(specs)) if isinstance(spec, Spec)]
    entries = sum(math.prod(spec.shape) for spec in arrays)
    if entries * DRAWN > (there := _machine.memory()):
        largest = max(arrays, key=lambda spec: math.prod(spec.shape))
        raise ValueError(
            f"{largest.dtype}[{','.join(map(str, largest.shape))}] is too large to be checked here: all arrays have "
            f"{entries:,} entries, which take some {entries * DRAWN / 1e9:,.0f} GB of this machine's {there / 1e9:,.0f}"
        )


def _draw(spec: Spec, rng: np.random.Generator) -> jax.Array:
    if jnp.issubdtype(spec.dtype, jnp.complexfloating):
        parts = rng.standard_normal((2, *spec.shape))
        return jnp.asarray(parts[0] + 1j * parts[1], spec.dtype)
    if jnp.issubdtype(spec.dtype, jnp.floating):
        return jnp.asarray(_within(spec, rng.standard_normal(spec.shape), rng), spec.dtype)
    low, high = 0 if spec.above is None else int(spec.above) + 1, 2 if spec.below is None else int(spec.below)
    return jnp.asarray(rng.integers(low, high, spec.shape), spec.dtype)


def _within(spec: Spec, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Normal numbers carried into the range of an array: uniform between two bounds, folded at a single one."""
    if spec.range is None:
        return x
    low, high = spec.range
    if np.isfinite(low) and np.isfinite(high):
        return low + (high - low) * rng.uniform(INSIDE, 1 - INSIDE, x.shape)
    step = np.abs(x) + INSIDE
    return low + step * max(1, abs(low)) if np.isfinite(low) else high - step * max(1, abs(high))
