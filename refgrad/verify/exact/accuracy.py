"""Accuracy of balls, relative to their own size or the function's."""

import operator
from typing import Any

import numpy as np
from flint import acb, arb

from refgrad.verify.exact.balls import width
from refgrad.verify.exact.scalars.germ import PRECISION, Undecided


def magnitudes(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return |midpoints| and radii of the finite balls of an array, roughly."""
    balls = x.ravel()
    if set(map(type, balls)) - {arb}:
        kept = (c for c in balls if isinstance(c, arb | acb))
        balls = [part for c in kept for part in ((c.real, c.imag) if isinstance(c, acb) else (c,))]
    parts = (map(float, map(operator.methodcaller(name), balls)) for name in ("mid", "rad"))
    mid, rad = (np.fromiter(part, np.float64, len(balls)) for part in parts)
    finite = np.isfinite(mid)
    return np.abs(mid[finite]), rad[finite]


def largest(x: np.ndarray) -> float:
    """Return the largest finite |midpoint|, 0 if none is finite."""
    return float(np.max(magnitudes(x)[0], initial=0.0))


def narrow(x: Any, size: float, bits: int) -> bool:
    """Return True where a ball is known to `bits` bits, relative to itself or to `size`."""
    radius = width(x)
    return radius.is_zero() or radius <= abs(x).lower() / arb(2) ** bits or radius <= arb(size) / arb(2) ** bits


def needs(x: np.ndarray, size: float, bits: int) -> set[str]:
    """Return what would help an array: more precision, a higher order."""
    undecided = {c.why for c in x.ravel() if isinstance(c, Undecided)} if Undecided in map(type, x.ravel()) else set()
    return undecided if accurate(x, size, bits) else undecided | {PRECISION}


def accurate(x: np.ndarray, size: float, bits: int) -> bool:
    """Return True where all balls are known to `bits` bits, relative to the largest, to `size` where all hold 0."""
    mid, rad = magnitudes(x)
    scale = np.max(mid, initial=0.0)
    scale = scale if scale > np.max(rad, initial=0.0) else size
    return bool(np.all(rad <= np.maximum(mid, scale) * 2.0**-bits))
