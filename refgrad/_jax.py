"""What newer versions of JAX change, behind one small file. Only public modules; jax >= 0.10.2."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, jaxprs_in_params

SCAN_BODIES = ("closed_call", "eval_jaxpr")
"""What a scan's loop calls its own equations in HLO: a computation in JAX 0.10, a scope in the loop's body in 0.11."""
TANH_RESIDUALS = 1 if hasattr(jax.lax, "one_minus_square") else 2
"""Arrays that autodiff keeps of y = tanh(x): y and 1 − y in JAX 0.10, 1 − y² alone since 0.11."""


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


def called(params: Mapping[str, Any]) -> Jaxpr | ClosedJaxpr:
    """The program that a call runs. JAX 0.10 writes that of a `composite` as `jaxpr`, JAX 0.11 as `call_jaxpr`."""
    return params["jaxpr"] if "jaxpr" in params else params["call_jaxpr"]


def expansion(eqn: JaxprEqn) -> ClosedJaxpr:
    """The program of a `call_hi_primitive`, as JAX 0.11 writes `custom_root`: an object that expands when lowered."""
    primitive = eqn.params["_prim"]

    def program(*arrays):
        return primitive.out_tree.flatten_up_to(primitive.expand(*primitive.in_tree.unflatten(arrays)))

    return jax.make_jaxpr(program)(*(v.aval for v in eqn.invars))


def programs_in(eqn: JaxprEqn) -> Iterator[Jaxpr | ClosedJaxpr]:
    """The programs that an equation holds, among its parameters or as its expansion."""
    if eqn.primitive.name == "call_hi_primitive":
        yield expansion(eqn)
    else:
        yield from jaxprs_in_params(eqn.params)
