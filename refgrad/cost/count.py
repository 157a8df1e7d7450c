"""Costs of a program, from its jaxpr: nothing is computed, compiled or allocated.

One equation alone is lowered where XLA knows it only as a program of its own: linear algebra, random bits, special
functions.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from refgrad.cost.arguments import Argnums, arrays_of, chosen, dtype_of
from refgrad.cost.types import Count
from refgrad.cost.walk import NOWHERE, Walker
from refgrad.jaxpr.authors import author, is_jax

Unknown = Literal["raise", "count"]


def count(
    f: Callable[..., Any], *args: Any, kwargs: Mapping[str, Any] | None = None, unknown: Unknown = "raise"
) -> Count:
    """The cost of f(*args, **kwargs), with arrays or `jax.ShapeDtypeStruct`s as arguments.

    Only shapes and dtypes matter. Strings, functions and other objects among the arguments are held fixed.
    For a program without loops and without constants that XLA folds (x · 1, x + 0), `flops` and
    `transcendental` equal `jax.jit(f).lower(*args).cost_analysis()` exactly, up to that one's float32 sums.
    Loops count times their trips. Equations that no result depends on do not count.

    Args:
      f: the function.
      *args: its arguments, pytrees; Python numbers among them count as arrays.
      kwargs: its keyword arguments, pytrees; Python numbers and flags among them are held fixed.
      unknown: "count" to count a primitive without a known cost as 0 and list it in `Count.unknown`.

    Returns:
      A `Count`.

    Raises:
      UnknownCost: for a primitive without a known cost, unless `unknown` says otherwise.
      TypeError: where f is not a function.
      Exception: everything that f itself raises.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import cost
      >>> cost.count(jnp.matmul, jnp.ones((2, 3)), jnp.ones((3, 5))).flops
      60
    """
    program, arrays = arrays_of(f, args, kwargs)
    return count_jaxpr(jax.make_jaxpr(program)(*arrays), unknown, _line(f))


def count_backward(
    f: Callable[..., Any],
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    argnums: Argnums = None,
    unknown: Unknown = "raise",
) -> Count:
    """The cost of f's backward pass alone: from its residuals and a cotangent to its gradients.

    Gradients are those of every floating-point or complex leaf among the arguments. What `jax.checkpoint` computes
    again is in `.recomputed`.

    Args:
      f: the function.
      *args: its arguments, as for `count`.
      kwargs: its keyword arguments, differentiated likewise.
      argnums: the positions of `args` to differentiate, as for `jax.grad`; everything else is held constant.
      unknown: as for `count`.

    Returns:
      A `Count`.

    Raises:
      TypeError: where no such leaf is differentiated, or f returns none.
      ValueError: for a position in `argnums` that does not exist.
      UnknownCost: as `count` does.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import cost
      >>> cost.count_backward(jnp.matmul, jnp.ones((2, 3)), jnp.ones((3, 5))).flops  # two products
      120
    """
    return count_jaxpr(backward_jaxpr(f, *args, kwargs=kwargs, argnums=argnums), unknown, _line(f))


def backward_jaxpr(
    f: Callable[..., Any], *args: Any, kwargs: Mapping[str, Any] | None = None, argnums: Argnums = None
) -> Any:
    """The jaxpr of f's backward pass: residuals and cotangents in, gradients of the inexact leaves out."""
    pull, cotangent = abstract_vjp(f, *args, kwargs=kwargs, argnums=argnums)
    return jax.make_jaxpr(lambda pull, cotangent: pull(cotangent))(pull, cotangent)


def abstract_vjp(
    f: Callable[..., Any], *args: Any, kwargs: Mapping[str, Any] | None = None, argnums: Argnums = None
) -> tuple[Any, Any]:
    """(the pullback of f at its arguments, the cotangent it takes), both on abstract values."""
    leaves, pullback = differentiable(f, *args, kwargs=kwargs, argnums=argnums)
    out, pull = jax.eval_shape(pullback, *leaves)
    return pull, jax.tree.map(_cotangent, out)


def differentiable(
    f: Callable[..., Any], *args: Any, kwargs: Mapping[str, Any] | None = None, argnums: Argnums = None
) -> tuple[list[Any], Callable[..., tuple[Any, Any]]]:
    """(the leaves of the arguments, a function of them to f's value and its pullback to the differentiated ones).

    Raises TypeError where no leaf to differentiate is floating-point or complex, ValueError as `chosen` does.
    """
    program, arrays = arrays_of(f, args, kwargs)
    leaves, tree = jax.tree.flatten(arrays)
    moving = [i for i, wanted in enumerate(chosen(args, kwargs, argnums)) if wanted]
    inexact = [i for i in moving if jnp.issubdtype(dtype_of(leaves[i]), jnp.inexact)]
    if not inexact:
        which = "" if argnums is None else f" that argnums={argnums!r} chooses"
        raise TypeError(
            f"no gradient: none of the {len(moving)} argument leaves{which} is floating-point or complex "
            f"(dtypes: {sorted({str(dtype_of(leaves[i])) for i in moving})}): give one that is, or ask for the forward "
            f"alone"
        )

    def pullback(*leaves: Any) -> tuple[Any, Any]:
        def g(*moving: Any) -> Any:
            every = list(leaves)
            for i, x in zip(inexact, moving, strict=True):
                every[i] = x
            return program(*jax.tree.unflatten(tree, every))

        return jax.vjp(g, *(leaves[i] for i in inexact))

    return leaves, pullback


def count_jaxpr(jaxpr: Any, unknown: Unknown, line: str = NOWHERE) -> Count:
    """The cost of a traced program; `unknown` is as for `count`, `line` that of what no other line has called."""
    if unknown not in ("raise", "count"):
        raise ValueError(f"unknown must be 'raise' or 'count', not {unknown!r}")
    costs, _ = Walker(unknown, callers=[line]).walk(jaxpr, (True,) * len(jaxpr.jaxpr.outvars))
    sites = {site._replace(source=site.source or line): cost for site, cost in costs.sites.items()}
    return Count(sites, costs.notes)


def _line(f: Callable[..., Any]) -> str:
    """The line of f itself, to which the equations of a rule belong that is applied without a line around it."""
    code = author(f)
    return NOWHERE if code is None or is_jax(code.co_filename) else f"{code.co_filename}:{code.co_firstlineno}"


def _cotangent(out: Any) -> Any:
    """An output's cotangent: its own type, and float0 for integers and booleans."""
    if jnp.issubdtype(out.dtype, jnp.inexact):
        return out
    return jax.ShapeDtypeStruct(out.shape, jax.dtypes.float0)
