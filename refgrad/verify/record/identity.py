"""The name and place of a rule, and what tells it from another rule made by the same code."""

import functools
import types
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from jax.core import Tracer

from refgrad.jaxpr.authors import author, is_jax, is_machinery
from refgrad.jaxpr.hiprim import HI, JVP, VJP, is_own
from refgrad.jaxpr.methods import backward, is_hiprim, locations
from refgrad.jaxpr.versions import parts_of

LIMIT = 200  # parts of a rule that are looked at: a closure can reach a whole model
WRAPPED = ("__wrapped__", "func", "fn", "fun")  # the attribute in which a callable object keeps what it wraps
EQUINOX_VJP = "filter_custom_vjp._defvjp.<locals>.fn_wrapped"
STATIC = (bool, int, float, complex, str, bytes, type(None))


class Identity(NamedTuple):
    """A rule as a report names it."""

    kind: str
    name: str
    place: str  # file:line of the user's function
    variant: str = ""  # the scalars and functions that it closes over
    traced: bool = False  # it closes over a tracer, so it cannot be called outside the trace
    argnum: int | None = None  # the only argument that is differentiated; None for all


def identify(rule: Any) -> Identity | None:
    """Return the identity of a rule; None where it is JAX's own, or equinox's that forbids a derivative."""
    if is_hiprim(rule):
        if is_own(rule):
            return None
        place, _, _ = next(iter(locations(rule, backward(rule))), type(rule).__module__).partition(" (")
        return Identity(HI, type(rule).__name__, place, ", ".join(f"{k}={static(v)}" for k, v in rule.params.items()))
    if is_vjp := hasattr(rule, "defvjp"):
        fun, fwd, bwd = parts_of(rule)[:3]
    else:
        fun, fwd, bwd = rule.fun, rule.jvp, None
    forward, rules = author(fun), author(fwd, bwd)
    written = forward if _is_users(forward) else rules
    if written is None or not _is_users(written):
        return None
    code = getattr(fun, "__code__", None)
    wrapped = code is not None and is_machinery(code.co_filename)
    name = written.co_name if wrapped else getattr(rule, "__name__", written.co_name)
    reached = list(_reach((fun, fwd, bwd)))
    variant = ", ".join(static(x) for x in reached if isinstance(x, (*STATIC, types.FunctionType)))
    argnum = 2 if is_vjp and getattr(fun, "__qualname__", "") == EQUINOX_VJP else None
    return Identity(VJP if is_vjp else JVP, name, _place(written), variant, _traced(reached), argnum)


def closes_over_tracers(values: Iterable[Any]) -> bool:
    """Return True where a function among `values` holds a tracer."""
    return _traced(_reach(values))


def static(x: Any) -> str:
    """Return the text that tells a static value from another one, the same in every process."""
    if isinstance(x, STATIC):
        return repr(x)[:100]
    if isinstance(x, types.FunctionType):
        return f"{x.__name__} ({_place(x.__code__)})"
    return getattr(x, "__name__", None) or type(x).__name__


def _traced(parts: Iterable[Any]) -> bool:
    return any(isinstance(x, Tracer) for x in parts)


def _place(code: types.CodeType) -> str:
    return f"{code.co_filename}:{code.co_firstlineno}"


def _is_users(code: types.CodeType | None) -> bool:
    return code is not None and not is_jax(code.co_filename) and not is_machinery(code.co_filename)


def _reach(roots: Iterable[Any]) -> Iterator[Any]:
    """Yield `roots`, what they wrap and what they close over, the nearest first."""
    queue, seen = deque(roots), set()
    while queue and len(seen) < LIMIT:
        x = queue.popleft()
        if id(x) in seen:
            continue
        seen.add(id(x))
        yield x
        if isinstance(x, types.FunctionType):
            filled = (cell for cell in x.__closure__ or () if cell != types.CellType())  # an empty one has no contents
            queue.extend(cell.cell_contents for cell in filled)
        elif isinstance(x, types.MethodType):
            queue.extend((x.__func__, x.__self__))
        elif isinstance(x, functools.partial):
            queue.extend((x.func, *x.args, *x.keywords.values()))
        elif isinstance(x, tuple | list):
            queue.extend(x)
        elif isinstance(x, dict):
            queue.extend(x.values())
        elif callable(x) and not isinstance(x, type):
            queue.extend(vars(x)[name] for name in WRAPPED if name in getattr(x, "__dict__", ()))
