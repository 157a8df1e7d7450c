"""The methods of a `jax.experimental.hijax.HiPrim`: which ones a class has of its own, and where each is written."""

import contextlib
import inspect
import os
from collections.abc import Iterable, Iterator
from typing import Any

import jax
from jax.custom_derivatives import SymbolicZero
from jax.experimental import hijax as _hijax

JAX_FOLDER = os.path.dirname(str(jax.__file__)) + os.sep

hijax: Any = _hijax  # what it has depends on the version

HiPrim: Any = getattr(hijax, "HiPrim", None)
"""The class, or None: JAX 0.10 calls it by another name and gives it other methods."""

Places = tuple[str, ...]

REVERSE = ("vjp_bwd", "vjp_bwd_retval", "vjp_bwd_retval_logs")
"""The backward, in the order in which JAX prefers them."""
OPTIONAL = {
    "vjp_fwd": "grad raises",
    "jvp": "jax.jvp raises, and so does grad of checkpoint without jax_remat3",
    "lin": "jax.linearize raises",
    "batch": "vmap raises",
}
"""Methods that a rule may lack, with what JAX does then. All others have a default, or nothing that calls them."""
DERIVED = {
    getattr(pair, method): source
    for helper, method, source in (
        ("linearize_from_jvp", "lin", "jvp"),
        ("linearize_from_jvp", "linearized", "jvp"),
        ("vjp_from_jvp", "vjp_fwd", "jvp"),
        ("vjp_from_jvp", "vjp_bwd_retval", "jvp"),
        ("vjp_from_lin", "vjp_fwd", "lin"),
        ("vjp_from_lin", "vjp_bwd_retval", "linearized"),
    )
    if (pair := getattr(hijax, helper, None))
} | ({hijax.jvp_from_lin: "linearized"} if hasattr(hijax, "jvp_from_lin") else {})
"""The methods that JAX derives from another one, by function: that other one is to blame for them."""


def is_hiprim(x: Any) -> bool:
    """Return True for an instance of the class."""
    return HiPrim is not None and isinstance(x, HiPrim)


def has(prim: Any, *methods: str) -> bool:
    """Return True where the class of `prim` has one of these methods other than JAX's default."""
    return any(getattr(type(prim), m, None) is not getattr(HiPrim, m, None) for m in methods)


def lacked(prims: Iterable[Any], error: Exception) -> str:
    """Return "no `batch`: vmap raises" where JAX raised `error` because one of `prims` lacks that method; else ""."""
    text = str(error) if isinstance(error, NotImplementedError) else ""
    for prim in filter(is_hiprim, prims):
        for method, effect in OPTIONAL.items():
            if f"`{method}`" in text and str(type(prim)) in text and not has(prim, method):
                return f"no `{method}`: {effect}"
    return ""


def backward(prim: Any) -> str:
    """Return the name of the method that is the backward."""
    return next((m for m in REVERSE if has(prim, m)), REVERSE[1])


def locations(prim: Any, method: str) -> Places:
    """Return `file:line (Class.method)` of the code that the user wrote for a method.

    Those of the methods which JAX derives it from, where it is derived; nothing where Python does not know the place.
    """
    function = inspect.unwrap(getattr(type(prim), method))
    if (source := DERIVED.get(function)) is not None:
        transposed = method in REVERSE and has(prim, "transpose")
        return locations(prim, source) + (locations(prim, "transpose") if transposed else ())
    code = getattr(function, "__code__", None)
    if code is None or code.co_filename.startswith(JAX_FOLDER):
        return ()
    return (f"{code.co_filename}:{code.co_firstlineno} ({function.__qualname__})",)


@contextlib.contextmanager
def flag(name: str, value: bool) -> Iterator[None]:
    """Set one of JAX's options for a while: a method that is called under it alone cannot be reached otherwise."""
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        yield
    finally:
        jax.config.update(name, before)


def is_symbolic(x: Any) -> bool:
    """Return True for a zero that is only known to be one: of `custom_vjp` or of HiPrim."""
    return isinstance(x, SymbolicZero | hijax.Zero)


def value_accum(aval: Any) -> Any:
    """Return an empty accumulator for the cotangent of an argument of type `aval`."""
    return hijax.ValAccum(aval.to_ct_aval())


def frozen(accum: Any) -> Any:
    """Return the sum added to an accumulator; None if nothing was."""
    value = accum.freeze()
    return None if is_symbolic(value) else value
