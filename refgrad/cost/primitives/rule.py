"""What a rule is: from one equation of a jaxpr to its `Cost`, or to the programs that it runs.

A rule follows what JAX lowers the equation to and what XLA counts for that, on the sizes of the
equation's own abstract values; it never computes or compiles anything, and lowers nothing but the series of `special`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn


class Work(NamedTuple):
    """What one equation does. Bytes left at None are those of its operands and of its results."""

    matmul: int = 0
    elementwise: int = 0
    transcendental: int = 0
    read: int | None = None
    written: int | None = None
    per_trip: bool = False
    """Whether it iterates until it converges, and this is one iteration."""


@dataclass(frozen=True)
class Body:
    """A program that an equation runs.

    `inputs[i]` is the position of the equation's operand that feeds the body's argument i (None where
    it gets no operand); `outputs[i]` is the position of the equation's result that the body's result i
    becomes (None where it is always needed).
    """

    jaxpr: Jaxpr | ClosedJaxpr
    inputs: tuple[int | None, ...]
    outputs: tuple[int | None, ...]
    trips: int | None = 1
    """How many times it runs; None where the program alone does not tell."""
    devices: int = 1
    carry: int = 0
    """The first `carry` results feed the next trip's arguments from `carry_start` on."""
    carry_start: int = 0
    """Where it runs more than once: the arguments before this one are the same at every trip."""
    repeats: int = 1
    """How many times one trip applies it, as a reduction does its combiner: no loop for XLA."""
    moves: bool = True
    """Whether the bytes of its equations count; not where the whole is one fused kernel."""

    def fixed_inputs(self) -> list[int | None]:
        """The operand that feeds each argument, None also where another trip gets another value."""
        once = self.trips == 1 and not self.carry
        return [i if once or k < self.carry_start else None for k, i in enumerate(self.inputs)]


@dataclass(frozen=True)
class Bodies:
    """Every one of `all` runs; or, where `dearest`, one of them, and the dearest is counted."""

    all: tuple[Body, ...]
    dearest: bool = False
    also_needed: tuple[int, ...] = ()
    """Operands that the equation itself reads, such as a branch's index."""
    work: Work | None = None
    """What the equation costs beside its bodies; None where it is nothing, bytes included."""


Rule = Callable[[JaxprEqn], Work | Bodies | None]
"""None where the cost of this equation, with these parameters, is not known."""


def shape_of(value: Any) -> tuple[int, ...]:
    """Shape of a jaxpr variable or literal."""
    return value.aval.shape


def dtype_of(value: Any) -> Any:
    """Dtype of a jaxpr variable or literal."""
    return value.aval.dtype


def size(value: Any) -> int:
    """Number of elements of a jaxpr variable, literal or array."""
    return math.prod(value.aval.shape)


def nbytes(value: Any) -> int:
    """Bytes of a jaxpr variable; 0 for what holds no data (tokens, symbolic zeros of integers)."""
    aval = value.aval
    aval = getattr(aval, "inner_aval", aval)  # a Ref of a kernel
    dtype = getattr(aval, "dtype", None)
    if dtype is None or not hasattr(dtype, "itemsize"):
        return 0
    return (math.prod(aval.shape) * bits(dtype) + 7) // 8


def bits(dtype: Any) -> int:
    """Bits of one element, packed ones (int4, float4, ...) counted as they are stored."""
    if dtype.name in ("int2", "uint2"):
        return 2
    if dtype.name in ("int4", "uint4", "float4_e2m1fn"):
        return 4
    return 0 if dtype.name == "float0" else 8 * dtype.itemsize


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


def free(eqn: JaxprEqn) -> Work:
    """Data movement alone."""
    return Work()


def combine(eqn: JaxprEqn, combiner: Jaxpr | ClosedJaxpr, steps: int, work: Work | None = None) -> Bodies:
    """`steps` runs of a program on scalars, whose bytes are the equation's own."""
    inner = combiner.jaxpr if isinstance(combiner, ClosedJaxpr) else combiner
    body = Body(combiner, (None,) * len(inner.invars), (None,) * len(inner.outvars), repeats=steps, moves=False)
    return Bodies((body,), also_needed=tuple(range(len(eqn.invars))), work=work or Work())
