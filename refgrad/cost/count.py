"""What a program costs, from its jaxpr: nothing is computed, compiled or allocated.

One equation alone is lowered where XLA knows it only as a program of its own: linear algebra, random bits, special
functions.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from refgrad.cost.arguments import arrays_of, dtype_of
from refgrad.cost.types import Count
from refgrad.cost.walk import NOWHERE, Walker

Unknown = Literal["raise", "count"]


def count(f: Callable[..., Any], *args: Any, unknown: Unknown = "raise") -> Count:
    """The cost of f(*args), with arrays or `jax.ShapeDtypeStruct`s as arguments: only shapes and dtypes matter.
    Python numbers count as arrays; strings, functions and other objects among the arguments are held fixed.

    For a program without loops and without constants that XLA folds (x · 1, x + 0), `flops` and
    `transcendental` equal `jax.jit(f).lower(*args).cost_analysis()` exactly, up to that one's float32 sums.
    Loops count times their trips. Equations that no result depends on do not count.

    Raises UnknownCost for a primitive without a known cost, unless unknown="count" (see `Count.unknown`); TypeError
    where f is no function; what f itself raises comes through as it is.
    """
    program, arrays = arrays_of(f, args)
    return _count(jax.make_jaxpr(program)(*arrays), unknown)


def count_backward(f: Callable[..., Any], *args: Any, unknown: Unknown = "raise") -> Count:
    """The cost of f's backward pass alone: from its residuals and a cotangent to the gradient of every
    floating-point (or complex) leaf of args. What `jax.checkpoint` computes again is in `.recomputed`.

    Raises TypeError where args hold no such leaf or f returns none, UnknownCost as `count` does.
    """
    return _count(backward_jaxpr(f, *args), unknown)


def backward_jaxpr(f: Callable[..., Any], *args: Any) -> Any:
    """The jaxpr of f's backward pass: residuals and cotangents in, gradients of the inexact leaves out."""
    pull, cotangent = abstract_vjp(f, *args)
    return jax.make_jaxpr(lambda pull, cotangent: pull(cotangent))(pull, cotangent)


def abstract_vjp(f: Callable[..., Any], *args: Any) -> tuple[Any, Any]:
    """(the pullback of f at args, the cotangent it takes), both on abstract values."""
    leaves, pullback = differentiable(f, *args)
    out, pull = jax.eval_shape(pullback, *leaves)
    return pull, jax.tree.map(_cotangent, out)


def differentiable(f: Callable[..., Any], *args: Any) -> tuple[list[Any], Callable[..., tuple[Any, Any]]]:
    """(the leaves of args, a function of them to f's value and its pullback to the inexact ones).

    Raises TypeError where no leaf is floating-point or complex.
    """
    program, arrays = arrays_of(f, args)
    leaves, tree = jax.tree.flatten(arrays)
    inexact = [i for i, x in enumerate(leaves) if jnp.issubdtype(dtype_of(x), jnp.inexact)]
    if not inexact:
        raise TypeError(
            f"no gradient: none of the {len(leaves)} argument leaves is floating-point or complex "
            f"(dtypes: {sorted({str(dtype_of(x)) for x in leaves})}): give one that is, or ask for the forward alone"
        )

    def pullback(*leaves: Any) -> tuple[Any, Any]:
        def g(*moving: Any) -> Any:
            every = list(leaves)
            for i, x in zip(inexact, moving, strict=True):
                every[i] = x
            return program(*jax.tree.unflatten(tree, every))

        return jax.vjp(g, *(leaves[i] for i in inexact))

    return leaves, pullback


def _count(jaxpr: Any, unknown: Unknown) -> Count:
    if unknown not in ("raise", "count"):
        raise ValueError(f"unknown must be 'raise' or 'count', not {unknown!r}")
    costs, _ = Walker(unknown).walk(jaxpr, (True,) * len(jaxpr.jaxpr.outvars))
    sites = {site._replace(source=site.source or NOWHERE): cost for site, cost in costs.sites.items()}
    return Count(sites, costs.notes)


def _cotangent(out: Any) -> Any:
    """An output's cotangent: its own type, and float0 for integers and booleans."""
    if jnp.issubdtype(out.dtype, jnp.inexact):
        return out
    return jax.ShapeDtypeStruct(out.shape, jax.dtypes.float0)
