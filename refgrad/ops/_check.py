"""Shapes and dtypes that must agree, said once for each operation and checked before anything is traced further."""

import operator
from typing import Any

import jax.numpy as jnp
from jax import Array


def check_args(op: str, **arguments: tuple[Array, str]) -> None:
    """Check each argument against its pattern, as in `check_args("linear", x=(x, "... i"), w=(w, "i o"))`.

    A letter names a length that must be the same wherever it stands, `...` any leading axes (the same wherever
    they stand); `< V` after the axes marks integer ids. Floating arguments share one dtype.

    Raises ValueError for a shape and TypeError for a dtype, naming the operation, the argument, the value and what
    it should have been.
    """
    lengths: dict[str, tuple[object, str]] = {}
    floating: tuple[str, jnp.dtype] | None = None
    for name, (value, pattern) in arguments.items():
        axes, _, ids = pattern.partition("<")
        dtype = jnp.result_type(value)
        if ids:
            if not jnp.issubdtype(dtype, jnp.integer):
                raise TypeError(f"{op}: {name} is {dtype}, but ids are integers: pass {name}.astype('int32')")
        elif not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(f"{op}: {name} is {dtype}, but a floating array is differentiated: cast it to one")
        elif floating is None:
            floating = name, dtype
        elif dtype != floating[1]:
            raise TypeError(
                f"{op}: {name} is {dtype} but {floating[0]} is {floating[1]}: cast one to the other's dtype"
            )
        _bind(op, name, jnp.shape(value), axes.split(), lengths)


def check_size(op: str, name: str, value: Any, what: str) -> None:
    """Hold a static size, such as `what`, against the least of 1; one larger than its axis is the axis.

    Raises TypeError where it is not an integer known while tracing, and ValueError below 1, naming operation and value.
    """
    try:
        whole = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        whole = None
    if whole is None:
        raise TypeError(f"{op}: {name} is {value!r}, but must be a static integer: {what}")
    if whole < 1:
        raise ValueError(f"{op}: {name} is {value}, but must be at least 1: {what}")


def _bind(op: str, name: str, shape: tuple[int, ...], axes: list[str], lengths: dict) -> None:
    """Match one shape with its axes, entering new ones into `lengths` (axis → its length, who set it)."""
    found: list[tuple[str, object]] = []
    if axes and axes[0] == "...":
        leading = len(shape) - (len(axes) - 1)
        if leading < 0:
            raise ValueError(f"{op}: {name} has shape {shape}, which has fewer than {len(axes) - 1} axes ({axes})")
        found.append(("...", shape[:leading]))
        shape_rest, axes = shape[leading:], axes[1:]
    else:
        shape_rest = shape
        if len(shape) != len(axes):
            raise ValueError(f"{op}: {name} has shape {shape}, but needs {len(axes)} axes: {' '.join(axes)}")
    found += zip(axes, shape_rest, strict=True)
    for axis, length in found:
        expected, whose = lengths.setdefault(axis, (length, f"by {name}"))
        if length != expected:
            raise ValueError(
                f"{op}: {name} has shape {shape}, where {axis} is {length}, but {axis} = {expected} {whose}"
            )
