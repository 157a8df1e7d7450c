"""Elementwise operations on integers and truth values, as XLA has them, in NumPy."""

from collections.abc import Callable
from typing import Any

import numpy as np


def _quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a / b towards zero, as XLA has it for integers; all bits are set in a division by 0."""
    safe = np.where(b == 0, np.ones_like(b), b)
    q = np.abs(a) // np.abs(safe) * np.sign(a) * np.sign(safe)
    return np.where(b == 0, np.array(-1).astype(a.dtype), q).astype(a.dtype)


def _modulo(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the remainder with the sign of a, and a itself in a division by 0."""
    return np.where(b == 0, a, np.fmod(a, np.where(b == 0, np.ones_like(b), b)))


def _shift(right: bool, arithmetic: bool = False) -> Callable[..., np.ndarray]:
    def shifted(x: np.ndarray, n: np.ndarray) -> np.ndarray:
        bits = 8 * x.dtype.itemsize
        source = x.view(f"{'i' if arithmetic else 'u'}{x.dtype.itemsize}")  # unsigned integers have a sign here, too
        count = n.astype(source.dtype)
        far = (count >= bits) | (count < 0)
        moved = (np.right_shift if right else np.left_shift)(
            source, np.where(far, bits - 1 if arithmetic else 0, count)
        )
        return (moved if arithmetic else np.where(far, 0, moved).astype(source.dtype)).view(x.dtype)

    return shifted


def _leading_zeros(x: np.ndarray) -> np.ndarray:
    """Return the number of leading zero bits; none of a negative integer."""
    bits = x.view(f"u{x.dtype.itemsize}").astype(object)
    return np.array(8 * x.dtype.itemsize - np.vectorize(int.bit_length, otypes=[int])(bits))


INTEGERS: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": _quotient,
    "rem": _modulo,
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "square": np.square,
    "max": np.maximum,
    "min": np.minimum,
    "clamp": lambda low, x, high: np.clip(x, low, high),
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "pow": np.power,
    "mulhi": lambda a, b: (a.astype(object) * b.astype(object)) >> (8 * a.dtype.itemsize),
    "population_count": np.bitwise_count,
    "clz": _leading_zeros,
    "shift_left": _shift(right=False),
    "shift_right_logical": _shift(right=True),
    "shift_right_arithmetic": _shift(right=True, arithmetic=True),
}
