"""Everything that depends on the version of JAX, 0.10.2 and newer; only public modules.

Other rooms hold data with a version beside it, such as `{(0, 10): 2, (0, 12): 1}`, and ask `newest` which row applies.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

T = TypeVar("T")
Version = tuple[int, ...]

RUNNING: Version = tuple(int(part) for part in re.findall(r"\d+", jax.__version__)[:3])
"""The version of JAX that is installed, as (major, minor, patch)."""


def at_least(version: Version) -> bool:
    """Return True where the installed JAX is `version` or newer."""
    return version <= RUNNING


def newest(rows: Mapping[Version, T]) -> T:
    """Return the row of the newest version that is not above the installed one.

    Raises ValueError where every row is of a newer version.
    """
    version = max(filter(at_least, rows), default=None)
    if version is None:
        raise ValueError(f"no row for JAX {jax.__version__}: the oldest is of {min(rows)}")
    return rows[version]


SCAN_BODIES = ("closed_call", "eval_jaxpr")
"""Names of a scan's body in HLO: a computation in JAX 0.10, a scope in the loop's body since 0.11."""


def custom_vjp(function: Callable | None = None, *, nondiff_argnums: tuple[int, ...] = ()) -> Any:
    """`jax.custom_vjp`, whose result has its parts as attributes in every version: `.fun`, `.fwd` and `.bwd`."""
    if function is None:
        return partial(custom_vjp, nondiff_argnums=nondiff_argnums)
    op: Any = jax.custom_vjp(function, nondiff_argnums=nondiff_argnums)
    op.fun = function
    return op


def scan_operands(params: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many operands of a `scan` are constants, and how many after them are carried; the rest are sliced.

    JAX 0.10 writes both numbers among the equation's parameters, JAX 0.11 a tree of its operands.
    """
    if "num_carry" in params:
        return params["num_consts"], params["num_carry"]
    constants, carried, _ = params["ft_in"].unpack()
    return len(constants), len(carried)


def called(params: Mapping[str, Any]) -> Jaxpr | ClosedJaxpr:
    """Return the program that a call runs.

    JAX 0.10 writes that of a `composite` as `jaxpr`, JAX 0.11 as `call_jaxpr`.
    """
    return params["jaxpr"] if "jaxpr" in params else params["call_jaxpr"]


def expansion(eqn: JaxprEqn) -> ClosedJaxpr:
    """Return the program of a `call_hi_primitive`: an object that expands when it is lowered."""
    primitive = eqn.params["_prim"]

    def program(*arrays):
        return primitive.out_tree.flatten_up_to(primitive.expand(*primitive.in_tree.unflatten(arrays)))

    return jax.make_jaxpr(program)(*(v.aval for v in eqn.invars))


def closed(program: ClosedJaxpr | Jaxpr) -> ClosedJaxpr:
    """Return a program with its constants; JAX 0.11.2 merges the two classes."""
    return program if isinstance(program, ClosedJaxpr) else ClosedJaxpr(program, ())


def opened(program: ClosedJaxpr | Jaxpr) -> Jaxpr:
    """Return a program without its constants."""
    return program.jaxpr if isinstance(program, ClosedJaxpr) else program
