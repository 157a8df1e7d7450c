"""Shapes, dtypes, bytes and sharding of arrays, and of the variables and literals of a program."""

import math
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def shape_of(value: Any) -> tuple[int, ...]:
    """Return the shape of a variable or literal of a program."""
    return value.aval.shape


def dtype_of(value: Any) -> Any:
    """Return the dtype of a variable or literal of a program."""
    return value.aval.dtype


def size(value: Any) -> int:
    """Return the number of elements of a variable or literal of a program."""
    return math.prod(value.aval.shape)


def nbytes(value: Any) -> int:
    """Return the bytes of a variable; 0 for what holds no data (tokens, symbolic zeros of integers)."""
    aval = value.aval
    aval = getattr(aval, "inner_aval", aval)  # a Ref of a kernel
    dtype = getattr(aval, "dtype", None)
    if dtype is None or not hasattr(dtype, "itemsize"):
        return 0
    return (math.prod(aval.shape) * bits(dtype) + 7) // 8


def is_on_host(value: Any) -> bool:
    """Return True for a variable in the host's memory, to which a device's program has offloaded it."""
    return "host" in str(getattr(value.aval, "memory_space", "")).lower()


@cache
def bits(dtype: Any) -> int:
    """Return the bits of one element, packed ones (int4, float4, ...) as they are stored."""
    if dtype.name in ("int2", "uint2"):
        return 2
    if dtype.name in ("int4", "uint4", "float4_e2m1fn"):
        return 4
    return 0 if dtype.name == "float0" else 8 * dtype.itemsize


def is_float(x: Any) -> bool:
    """Return True for an array (concrete or abstract) or Python number that can be differentiated."""
    if isinstance(x, bool | int | str | bytes | type):  # jnp.float32 has a dtype
        return False
    dtype = getattr(x, "dtype", None)
    if dtype is None:
        return isinstance(x, float | complex)
    return jnp.issubdtype(dtype, jnp.inexact)


def is_array(x: Any) -> bool:
    """Return True for an array, concrete or abstract: what a traced program can take as an argument."""
    return hasattr(x, "dtype") and hasattr(x, "shape") and not isinstance(x, type)


def canonical(x: Any) -> Any:
    """Return a NumPy array or number as the array that JAX makes of it, and anything else as it is.

    float64 becomes float32 unless x64 is on.
    """
    if not isinstance(x, np.ndarray | np.generic):
        return x
    try:
        jax.dtypes.canonicalize_dtype(x.dtype)
    except TypeError:  # strings and objects are not arrays to JAX
        return x
    return jnp.asarray(x)


def varying_axes(x: Any) -> frozenset[str]:
    """Return the manual mesh axes over which `x` varies inside `shard_map(check_vma=True)`; empty outside."""
    return varying_axes_of(jax.typeof(x))


def varying_axes_of(aval: Any) -> frozenset[str]:
    """Return the same for a type, such as that of a traced program's variable."""
    return frozenset(aval.mat.varying)


def explicit_sharding(x: Any) -> jax.sharding.NamedSharding | None:
    """Return the sharding in the type of `x` where its mesh has explicit axes; None under auto or manual axes."""
    sharding = jax.typeof(x).sharding
    explicit = jax.sharding.AxisType.Explicit
    return sharding if not sharding.mesh.empty and explicit in sharding.mesh.axis_types else None
