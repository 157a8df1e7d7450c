"""What a user's arguments are: arrays and numbers, which are traced, and everything else, which is held fixed."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

_NUMBERS = (bool, int, float, complex)
_NOTE = (
    "Python numbers among the arguments are traced, as under jax.jit: one that the function needs as a value (a size, "
    "a flag, a static argument) belongs in a closure, functools.partial(f, n=3) or lambda x: f(x, 3)"
)


def arrays_of(f: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """(f as a function of the arrays among args, those): strings, functions and other objects are held fixed.

    Arrays are concrete, abstract (`jax.ShapeDtypeStruct`) or numbers. Raises TypeError where f cannot be called.
    """
    if not callable(f):
        raise TypeError(f"f={f!r} is not a function: give the function first, then its arguments")
    leaves, tree = jax.tree.flatten(args)
    where = [i for i, x in enumerate(leaves) if _is_array(x)]
    if len(where) == len(leaves) and not any(isinstance(x, _NUMBERS) for x in leaves):
        return f, args

    def program(*arrays: Any) -> Any:
        every = list(leaves)
        for i, x in zip(where, arrays, strict=True):
            every[i] = x
        try:
            return f(*jax.tree.unflatten(tree, every))
        except (TypeError, ValueError) as error:
            if isinstance(error, jax.errors.JAXTypeError) or re.search("concrete|static", str(error)):
                error.add_note(_NOTE)
            raise

    program.__name__ = getattr(f, "__name__", type(f).__name__)
    return program, tuple(leaves[i] for i in where)


def dtype_of(x: Any) -> Any:
    """The dtype of an array or number."""
    return x.dtype if hasattr(x, "dtype") else jnp.result_type(x)


def _is_array(x: Any) -> bool:
    if isinstance(x, _NUMBERS):
        return True
    dtype = getattr(x, "dtype", None)
    kinds = (jnp.number, jnp.bool_, jax.dtypes.extended)
    return dtype is not None and hasattr(x, "shape") and any(jnp.issubdtype(dtype, kind) for kind in kinds)
