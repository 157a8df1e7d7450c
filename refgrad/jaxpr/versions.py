"""Everything that depends on the version of JAX, 0.10.2 and newer; only public modules.

Other rooms hold data with a version beside it, such as `{(0, 10): 2, (0, 12): 1}`, and ask `newest` which row applies.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar, overload

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

T = TypeVar("T")
P = ParamSpec("P")
Version = tuple[int, ...]

JAX: str = jax.__version__
"""The installed version of JAX, for people to read."""
RUNNING: Version = tuple(int(part) for part in re.findall(r"\d+", JAX)[:3])
"""The same as (major, minor, patch)."""


def at_least(version: Version) -> bool:
    """Return True where the installed JAX is `version` or newer."""
    return version <= RUNNING


def newest(rows: Mapping[Version, T]) -> T:
    """Return the row of the newest version that is not above the installed one.

    Raises ValueError where every row is of a newer version.
    """
    version = max(filter(at_least, rows), default=None)
    if version is None:
        raise ValueError(f"no row for JAX {JAX}: the oldest is of {min(rows)}")
    return rows[version]


SCAN_BODIES = ("closed_call", "eval_jaxpr")
"""Names of a scan's body in HLO: a computation in JAX 0.10, a scope in the loop's body since 0.11."""


class Differentiable(Protocol[P, T]):
    """A `jax.custom_vjp` function with the signature of its forward, which JAX's class leaves out, and its parts."""

    __name__: str
    fun: Callable[P, T]
    fwd: Callable[..., Any]
    bwd: Callable[..., Any]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T: ...
    def defvjp(self, fwd: Any, bwd: Any, **settings: bool) -> None:
        """Set the rule: `fwd` returns the output and the residuals, `bwd` the cotangents."""


@overload
def custom_vjp(function: Callable[P, T], *, nondiff_argnums: tuple[int, ...] = ()) -> Differentiable[P, T]: ...
@overload
def custom_vjp(*, nondiff_argnums: tuple[int, ...]) -> Callable[[Callable[P, T]], Differentiable[P, T]]: ...
def custom_vjp(function: Callable | None = None, *, nondiff_argnums: tuple[int, ...] = ()) -> Any:
    """`jax.custom_vjp`, whose result has its parts as attributes in every version: `.fun`, `.fwd` and `.bwd`."""
    if function is None:
        return partial(custom_vjp, nondiff_argnums=nondiff_argnums)
    op: Any = jax.custom_vjp(function, nondiff_argnums=nondiff_argnums)
    op.fun = function
    return op


def is_rule(f: Any) -> bool:
    """Return True for a `custom_vjp` or `custom_jvp` function, of any class that JAX gives it under its flags."""
    return callable(f) and (hasattr(f, "defvjp") or hasattr(f, "defjvp"))


class RuleParts(NamedTuple):
    """Functions and settings that a `custom_vjp` function was made of."""

    fun: Callable
    fwd: Callable | None
    bwd: Callable | None
    nondiff_argnums: tuple[int, ...]
    symbolic_zeros: bool
    optimize_remat: bool
    with_accums: bool
    with_logs: bool


def parts_of(rule: Any) -> RuleParts:
    """Return the parts of a `custom_vjp` function; JAX 0.11's class for `jax_custom_vjp3` has other names for them."""

    def first(*names: str, default: Any = None) -> Any:
        return next((getattr(rule, name) for name in names if hasattr(rule, name)), default)

    return RuleParts(
        first("fun", "f"),
        first("fwd"),
        first("bwd"),
        nondiff_argnums(rule),
        first("symbolic_zeros", "symz", default=False),
        first("optimize_remat", "opt_remat", default=False),
        first("with_accums", default=False),
        first("with_logs", default=False),
    )


def nondiff_argnums(f: Any) -> tuple[int, ...]:
    """Return the arguments that a rule does not differentiate, by position; nothing for any other function."""
    if not is_rule(f):
        return ()
    return tuple(getattr(f, "nondiff_argnums", None) or getattr(f, "static_argnums", None) or ())


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


def closed(program: ClosedJaxpr | Jaxpr) -> ClosedJaxpr:
    """Return a program with its constants; JAX 0.11.2 merges the two classes."""
    return program if isinstance(program, ClosedJaxpr) else ClosedJaxpr(program, ())


def opened(program: ClosedJaxpr | Jaxpr) -> Jaxpr:
    """Return a program without its constants."""
    return program.jaxpr if isinstance(program, ClosedJaxpr) else program
