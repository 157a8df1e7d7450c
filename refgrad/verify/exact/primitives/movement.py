"""Entries moved, repeated and left out, by NumPy: no arithmetic, and no program of XLA's."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn

from refgrad.verify.exact.arrays import move
from refgrad.verify.exact.primitives.elementwise import as_array


def moves(f: Callable[..., Any]) -> Callable[..., Any]:
    """The rule of a NumPy function of (parameters, operands)."""
    return lambda eqn, *xs: move(lambda *data: f(eqn.params, *data), *xs)


def broadcast_in_dim(p: dict, x: np.ndarray, *_: Any) -> np.ndarray:
    """Operand axis i becomes axis `broadcast_dimensions[i]`; the others repeat it."""
    shape = [1] * len(p["shape"])
    for size, d in zip(x.shape, p["broadcast_dimensions"], strict=True):
        shape[d] = size
    return np.broadcast_to(x.reshape(shape), p["shape"])


def pad(p: dict, x: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Padding before, after (negative: cut off) and between entries."""
    for axis, (low, high, interior) in enumerate(p["padding_config"]):
        n = x.shape[axis]
        spread = max(0, n + interior * (n - 1)) if n else 0
        shape = list(x.shape)
        shape[axis] = max(0, low) + spread + max(0, high)
        out = np.empty(shape, x.dtype)
        out[...] = value
        at: list[Any] = [slice(None)] * x.ndim
        at[axis] = slice(max(0, low), max(0, low) + spread, interior + 1)
        out[tuple(at)] = x
        at[axis] = slice(max(0, -low), shape[axis] - max(0, -high))
        x = out[tuple(at)]
    return x


def slice_(p: dict, x: np.ndarray) -> np.ndarray:
    """Entries between two corners, with strides."""
    strides = p["strides"] or (1,) * x.ndim
    return x[tuple(map(slice, p["start_indices"], p["limit_indices"], strides))]


def split(eqn: JaxprEqn, x: Any) -> list:
    """Consecutive parts along an axis."""
    ends = np.cumsum(eqn.params["sizes"])
    axis = eqn.params["axis"]
    return [
        move(lambda d, s=end - size, e=end: np.take(d, np.arange(s, e), axis), x)
        for size, end in zip(eqn.params["sizes"], ends, strict=True)
    ]


def unstack(eqn: JaxprEqn, x: Any) -> list:
    """The entries along an axis."""
    axis = eqn.params["axis"]
    return [move(lambda d, i=i: np.take(d, i, axis), x) for i in range(x.shape[axis])]


def iota(eqn: JaxprEqn, *_: Any) -> Any:
    """The index along one axis."""
    p = eqn.params
    shape = [1] * len(p["shape"])
    shape[p["dimension"]] = -1
    index = np.broadcast_to(np.arange(p["shape"][p["dimension"]]).reshape(shape), p["shape"])
    return as_array(index) if jnp.issubdtype(p["dtype"], np.inexact) else index.astype(p["dtype"])


def same(eqn: JaxprEqn, *xs: Any) -> Any:
    """Operands as they are."""
    return list(xs) if eqn.primitive.multiple_results else xs[0]


RULES: dict[str, Callable[..., Any]] = {
    "reshape": moves(lambda p, x: x.reshape(p["new_sizes"])),
    "transpose": moves(lambda p, x: x.transpose(p["permutation"])),
    "squeeze": moves(lambda p, x: np.squeeze(x, p["dimensions"])),
    "broadcast_in_dim": moves(broadcast_in_dim),
    "rev": moves(lambda p, x: np.flip(x, p["dimensions"])),
    "tile": moves(lambda p, x: np.tile(x, p["reps"])),
    "concatenate": moves(lambda p, *xs: np.concatenate(xs, p["dimension"])),
    "pad": moves(pad),
    "slice": moves(slice_),
    "split": split,
    "stack": moves(lambda p, *xs: np.stack(xs, p["axis"])),
    "unstack": unstack,
    "platform_index": lambda eqn, *_: np.int32(0),  # the table of structured primitives keeps one branch
    "dce_sink": lambda eqn, *_: [],
    "iota": iota,
    "empty": lambda eqn: as_array(np.zeros(math.prod(eqn.params["shape"])).reshape(eqn.params["shape"])),
    **dict.fromkeys(
        (
            "copy",
            "device_put",
            "name",
            "optimization_barrier",
            "mesh_cast",
            "reshard",
            "sharding_constraint",
        ),
        same,
    ),
}
