"""Arguments of a user's function: arrays and numbers are traced, everything else is held fixed."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from refgrad._given import keywords, positions

_NUMBERS = (bool, int, float, complex)
_NOTE = (
    "Python numbers among the arguments are traced, as under jax.jit: one that the function needs as a value (a size, "
    "a flag, a static argument) belongs in kwargs={'n': 3}, a closure, functools.partial(f, n=3) or lambda x: f(x, 3)"
)
Argnums = int | Sequence[int] | None


def arrays_of(
    f: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """(f as a function of the arrays among its arguments, those): strings, functions and other objects are held fixed.

    Arrays are concrete or abstract (`jax.ShapeDtypeStruct`). Python numbers are arrays among `args`, and held fixed
    among `kwargs`. Raises TypeError where f cannot be called.
    """
    if not callable(f):
        raise TypeError(f"f={f!r} is not a function: give the function first, then its arguments")
    leaves, tree = jax.tree.flatten((args, keywords(kwargs)))
    where = _where(args, leaves)
    if not kwargs and len(where) == len(leaves) and not any(isinstance(x, _NUMBERS) for x in leaves):
        return f, args

    def program(*arrays: Any) -> Any:
        every = list(leaves)
        for i, x in zip(where, arrays, strict=True):
            every[i] = x
        args, kwargs = jax.tree.unflatten(tree, every)
        try:
            return f(*args, **kwargs)
        except (TypeError, ValueError) as error:
            if isinstance(error, jax.errors.JAXTypeError) or re.search("concrete|static", str(error)):
                error.add_note(_NOTE)
            raise

    program.__name__ = getattr(f, "__name__", type(f).__name__)
    return program, tuple(leaves[i] for i in where)


def chosen(args: tuple[Any, ...], kwargs: Mapping[str, Any] | None, argnums: Argnums) -> list[bool]:
    """Return, for each leaf of `arrays_of`'s arrays, True where `argnums` lets it be differentiated.

    None chooses all, keyword arguments too. Raises ValueError for a position that does not exist.
    """
    moving = positions(argnums, len(args))
    of_args = [moving is None or n in moving for n, arg in enumerate(args) for _ in jax.tree.leaves(arg)]
    leaves = jax.tree.leaves((args, keywords(kwargs)))
    every = [*of_args, *(moving is None for _ in leaves[len(of_args) :])]
    return [every[i] for i in _where(args, leaves)]


def _where(args: tuple[Any, ...], leaves: list[Any]) -> list[int]:
    """Return the leaves that are traced, of those of `args` and then of keyword arguments."""
    numbers = len(jax.tree.leaves(args))
    return [i for i, x in enumerate(leaves) if _is_array(x) or (i < numbers and isinstance(x, _NUMBERS))]


def dtype_of(x: Any) -> Any:
    """The dtype of an array or number."""
    return x.dtype if hasattr(x, "dtype") else jnp.result_type(x)


def _is_array(x: Any) -> bool:
    dtype = getattr(x, "dtype", None)
    kinds = (jnp.number, jnp.bool_, jax.dtypes.extended)
    return dtype is not None and hasattr(x, "shape") and any(jnp.issubdtype(dtype, kind) for kind in kinds)
