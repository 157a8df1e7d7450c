"""What newer versions of JAX change, behind one small file. Only public modules; jax >= 0.10.2."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax


def custom_vjp(function: Callable | None = None, *, nondiff_argnums: tuple[int, ...] = ()) -> Any:
    """`jax.custom_vjp`, whose result has its parts as attributes in every version: `.fun`, `.fwd` and `.bwd`."""
    if function is None:
        return partial(custom_vjp, nondiff_argnums=nondiff_argnums)
    op: Any = jax.custom_vjp(function, nondiff_argnums=nondiff_argnums)
    op.fun = function
    return op


def varying_axes(x) -> frozenset[str]:
    """The manual mesh axes over which `x` varies inside `shard_map(check_vma=True)`; empty outside."""
    return varying_axes_of(jax.typeof(x))


def varying_axes_of(aval) -> frozenset[str]:
    """The same of a type, such as those of a traced program's variables."""
    return frozenset(aval.mat.varying)


def explicit_sharding(x) -> jax.sharding.NamedSharding | None:
    """The sharding in the type of `x` where its mesh has explicit axes; None under auto or manual axes."""
    sharding = jax.typeof(x).sharding
    explicit = jax.sharding.AxisType.Explicit
    return sharding if not sharding.mesh.empty and explicit in sharding.mesh.axis_types else None


def scan_operands(params: Mapping[str, Any]) -> tuple[int, int]:
    """How many operands of a `scan` equation are constants, and how many after them are carried; the rest are sliced.

    JAX 0.10 writes both numbers among the equation's parameters, JAX 0.11 a tree of its operands.
    """
    if "num_carry" in params:
        return params["num_consts"], params["num_carry"]
    constants, carried, _ = params["ft_in"].unpack()
    return len(constants), len(carried)
