"""Cost rules: each maps one equation of a jaxpr to its `Cost`, or to the programs that it runs.

A rule follows what JAX lowers the equation to and what XLA counts for that, on the sizes of the
equation's own abstract values; it never computes or compiles anything, and lowers nothing but the series of `special`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from refgrad.jaxpr.calls import Bodies, opaque


class Work(NamedTuple):
    """The work of one equation. Bytes left at None are those of its operands and of its results."""

    matmul: int = 0
    elementwise: int = 0
    transcendental: int = 0
    read: int | None = None
    written: int | None = None
    per_trip: bool = False
    """True where it iterates until it converges, and this is one iteration."""
    about: str = ""
    """A note where XLA's figure is far from the work that is done."""


class Programs(NamedTuple):
    """The programs that an equation runs, and what it costs beside them: None where nothing, bytes included."""

    bodies: Bodies
    work: Work | None = None


Rule = Callable[[JaxprEqn], Work | Programs | None]
"""None where the cost of this equation, with these parameters, is not known."""


def kind(value: Any) -> str:
    """The class of dtypes that lower alike: float, half, double, complex, int, uint, bool or key."""
    dtype = value.aval.dtype
    name = next((name for name, parent in _KINDS.items() if jnp.issubdtype(dtype, parent)), "key")
    return {4: "float", 8: "double"}.get(dtype.itemsize, "half") if name == "float" else name


_KINDS = {
    "float": jnp.floating,
    "complex": jnp.complexfloating,
    "uint": jnp.unsignedinteger,
    "int": jnp.signedinteger,
    "bool": jnp.bool_,
}


def names(text: str) -> list[str]:
    """Primitives' names, separated by blanks."""
    return text.split()


def far(counted: int, done: int, how: str) -> str:
    """A note where XLA's figure and the work done are not within a factor of 1.5; else ""."""
    near = 2 * counted <= 3 * done and 2 * done <= 3 * counted
    return "" if near else f"XLA counts {counted:,} for work of about {done:,} ({how})"


def free(eqn: JaxprEqn) -> Work:
    """Data movement alone."""
    return Work()


def combine(eqn: JaxprEqn, combiner: Jaxpr | ClosedJaxpr, steps: int, work: Work | None = None) -> Programs:
    """`steps` runs of a program on scalars, whose bytes are the equation's own."""
    return Programs(opaque(eqn, combiner, repeats=steps, moves=False), work or Work())
