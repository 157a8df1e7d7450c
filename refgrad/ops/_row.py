"""The row of an operation: the data beside its rule, which drives its tests, its costs and its page.

Costs are polynomials in `refgrad.symbols`, twice: as the document counts, and as XLA counts the lowered module
(flops and transcendentals apart). Causes name every term in which the two differ.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import sympy
from jax import Array

from refgrad.symbols import evaluate, parse


class Cost(NamedTuple):
    """Operations in XLA's convention, for float32 and float64 arguments."""

    flops: sympy.Expr | int
    transcendentals: sympy.Expr | int = 0


class Special(NamedTuple):
    """An example worth its own name: dimensions that differ from the usual, values made from the usual ones."""

    dims: Mapping[str, int] = {}
    values: Mapping[str, Callable[[Array], Array]] = {}


@dataclasses.dataclass(frozen=True)
class Row:
    """One operation of the table.

    `arguments` maps each array argument to its axes (`"b s h"`; `"b s < V"` for integer ids below V), in order, and
    `statics` maps each static argument, which follow the arrays, to its value, an expression in the dimensions or a
    float. `document` is the backward pass as the document counts it, `backward.flops` is `document + Σ causes`, and
    `residuals` the bytes that the rule keeps, w for an element of the arguments and a for an accumulated one.
    """

    op: Any  # a jax.custom_vjp; its __call__ has no static type
    source: str
    arguments: Mapping[str, str]
    forward: Cost
    backward: Cost
    document: sympy.Expr | int
    causes: Mapping[str, sympy.Expr]
    residuals: sympy.Expr | int
    statics: Mapping[str, sympy.Expr | float] = dataclasses.field(default_factory=dict)
    special: Mapping[str, Special] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """The operation's name, which is its function's and its file's."""
        return self.op.__name__

    @property
    def differentiable(self) -> tuple[str, ...]:
        """The floating arguments, which have cotangents."""
        return tuple(name for name, axes in self.arguments.items() if "<" not in axes)

    def bound(self, dims: Mapping[str, int]) -> Callable[..., Any]:
        """The operation as a function of its arrays alone, its static arguments taken at `dims`."""
        values = {
            name: evaluate(value, dims) if isinstance(value, sympy.Basic) else value
            for name, value in self.statics.items()
        }

        def bound(*arrays: Array) -> Any:
            return self.op(*arrays, *values.values())

        bound.__name__ = bound.__qualname__ = self.name
        positional = inspect.Parameter.POSITIONAL_ONLY
        bound.__signature__ = inspect.Signature([inspect.Parameter(name, positional) for name in self.arguments])
        return bound

    def shapes(self, dims: Mapping[str, int], dtype: Any) -> tuple[jax.ShapeDtypeStruct, ...]:
        """The arrays' shapes and dtypes at `dims`."""

        def shape(axes: str) -> jax.ShapeDtypeStruct:
            lengths, _, ids = axes.partition("<")
            lengths = [evaluate(parse(axis), dims) for axis in lengths.split()]
            return jax.ShapeDtypeStruct(lengths, jnp.int32 if ids else dtype)

        return tuple(map(shape, self.arguments.values()))

    def sample(self, key: Array, dims: Mapping[str, int], dtype: Any) -> tuple[Array, ...]:
        """Arrays at `dims`: floats from a standard normal in float32, then cast; ids uniform below their bound."""
        arrays = []
        for axes, struct, one in zip(
            self.arguments.values(),
            self.shapes(dims, dtype),
            jax.random.split(key, len(self.arguments)),
            strict=True,
        ):
            _, _, bound = axes.partition("<")
            if bound:
                arrays.append(jax.random.randint(one, struct.shape, 0, dims[bound.strip()], dtype=jnp.int32))
            else:
                arrays.append(jax.random.normal(one, struct.shape, jnp.float32).astype(dtype))
        return tuple(arrays)

    def sample_special(self, name: str, key: Array, dims: Mapping[str, int], dtype: Any):
        """The named special example: its dimensions and its arrays."""
        special = self.special[name]
        dims = {**dims, **special.dims}
        arrays = self.sample(key, dims, dtype)
        changed = (
            special.values.get(argument, lambda x: x)(array)
            for argument, array in zip(self.arguments, arrays, strict=True)
        )
        return dims, tuple(changed)
