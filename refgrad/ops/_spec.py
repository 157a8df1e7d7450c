"""The row of an operation: the data beside its rule, which drives its tests, its costs and its page.

Costs are polynomials in `refgrad.symbols`, twice: as the document counts, and as XLA counts the lowered module
(flops and transcendentals apart). Causes name every term in which the two differ.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import sympy
from jax import Array

from refgrad._renamed import renamed
from refgrad.symbols import SYMBOLS, evaluate, parse

KEY = "key"  # in the place of axes


class OpCost(NamedTuple):
    """Operations in XLA's convention, for float32 arguments; float64 ones cost the same but for erfc.

    Attributes:
      flops: a polynomial in the documents' symbols.
      transcendentals: likewise.

    Example:
      >>> from refgrad import ops
      >>> ops.TABLE["tanh"].forward.transcendentals
      b*i*s
    """

    flops: sympy.Expr | int
    transcendentals: sympy.Expr | int = 0


NOTHING = OpCost(0)
OLD_FIELDS = {"document": "published_flops", "causes": "adjustments", "ahead": "fwd_extra"}  # until 0.3


class Special(NamedTuple):
    """An example worth its own name.

    Attributes:
      dims: dimensions other than the usual.
      values: argument → a function in NumPy that makes it from the usual values.

    Example:
      >>> from refgrad import ops
      >>> sorted(ops.TABLE["relu"].special)
      ['at the kink']
    """

    dims: Mapping[str, int] = {}
    values: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {}


@dataclasses.dataclass(frozen=True)
class OpSpec:
    """One operation of the table.

    Attributes:
      op: the operation, a `jax.custom_vjp`.
      source: the document's section.
      arguments: array argument → its axes, in order: `"b s h"`; `"b s < V"` for integer ids below V; `"key"` for a
        random key.
      forward: the cost of the forward pass.
      backward: the cost of the backward pass; its FLOPs are `published_flops + Σ adjustments`.
      residuals: the bytes that the rule keeps, `item` for an element of the arguments and a for an accumulated one.
      published_flops: the backward pass as the document counts it, 0 where it does not.
      adjustments: cause → the FLOPs in which the count differs from the document's.
      fwd_extra: the cost of the rule's forward pass beyond the forward, in the backward pass's place.
      statics: static argument → its value: an expression in the dimensions, a float or a string.
      scale: argument → a factor on a standard normal sample, where the operation meets it at another size.
      domain: argument → a function that carries such a sample to where the argument lives.
      special: name → an example with values of its own.

    Example:
      >>> from refgrad import ops
      >>> spec = ops.TABLE["layer_norm"]
      >>> spec.backward.flops
      11*b*h*s - 2*h
    """

    op: Any  # custom_vjp.__call__ has no static type
    source: str
    arguments: Mapping[str, str]
    forward: OpCost
    backward: OpCost
    residuals: sympy.Expr | int
    published_flops: sympy.Expr | int = 0
    adjustments: Mapping[str, sympy.Expr | int] = dataclasses.field(default_factory=dict)
    fwd_extra: OpCost = NOTHING
    statics: Mapping[str, sympy.Expr | float | str] = dataclasses.field(default_factory=dict)
    scale: Mapping[str, sympy.Expr] = dataclasses.field(default_factory=dict)
    domain: Mapping[str, Callable[[np.ndarray], np.ndarray]] = dataclasses.field(default_factory=dict)
    special: Mapping[str, Special] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """The operation's name, which is its file's below `refgrad/ops`: "layer_norm", "fused.layer_norm"."""
        return self.op.__module__.partition(".ops.")[2]

    @property
    def package(self) -> str:
        """The package of the operation's file."""
        return self.op.__module__.rpartition(".")[0]

    @property
    def differentiable(self) -> tuple[str, ...]:
        """The floating arguments, which have cotangents."""
        return tuple(name for name, axes in self.arguments.items() if "<" not in axes and axes != KEY)

    def static_values(self, dims: Mapping[str, int]) -> tuple[int | float | str, ...]:
        """The static arguments at `dims`, in order."""
        return tuple(evaluate(v, dims) if isinstance(v, sympy.Basic) else v for v in self.statics.values())

    def bound(self, dims: Mapping[str, int]) -> Callable[..., Any]:
        """The operation as a function of its arrays alone, its static arguments taken at `dims`."""
        statics = self.static_values(dims)

        def bound(*arrays: Array) -> Any:
            return self.op(*arrays, *statics)

        bound.__name__ = bound.__qualname__ = self.name
        bound.__wrapped__ = self.op.fun  # a report's title names the operation's file and line
        positional = inspect.Parameter.POSITIONAL_ONLY
        bound.__signature__ = inspect.Signature([inspect.Parameter(name, positional) for name in self.arguments])
        return bound

    def shapes(self, dims: Mapping[str, int], dtype: Any) -> tuple[jax.ShapeDtypeStruct, ...]:
        """The arrays' shapes and dtypes at `dims`."""

        def shape(axes: str) -> jax.ShapeDtypeStruct:
            if axes == KEY:
                return jax.eval_shape(jax.random.key, 0)
            lengths, _, ids = axes.partition("<")
            lengths = [evaluate(parse(axis), dims) for axis in lengths.split()]
            return jax.ShapeDtypeStruct(lengths, jnp.int32 if ids else dtype)

        return tuple(map(shape, self.arguments.values()))

    def sample(self, seed: int, dims: Mapping[str, int], dtype: Any, special: str = "") -> tuple[Array, ...]:
        """Arrays at `dims`: floats scaled from a normal, ids uniform below their bound, the seed's key; or the special
        values named.
        """
        rng = np.random.default_rng(seed)
        values = self.special[special].values if special else {}
        arrays = []
        for (name, axes), struct in zip(self.arguments.items(), self.shapes(dims, dtype), strict=True):
            _, _, bound = axes.partition("<")
            if axes == KEY:
                arrays.append(jax.random.key(seed))
                continue
            if bound:
                draw = rng.integers(0, evaluate(parse(bound), dims), struct.shape)
            else:
                draw = rng.standard_normal(struct.shape) * self._factor(name, dims)
                draw = self.domain.get(name, np.asarray)(draw)
            array = draw.astype(struct.dtype)
            arrays.append(jnp.asarray(values[name](array) if name in values else array, struct.dtype))
        return tuple(arrays)

    def __getattr__(self, name: str) -> Any:
        return renamed(self, OLD_FIELDS, name)

    def _factor(self, name: str, dims: Mapping[str, int]) -> float:
        scale = sympy.sympify(self.scale.get(name, 1))
        return float(scale.subs({SYMBOLS[symbol]: value for symbol, value in dims.items()}))


Uses = Sequence[tuple[OpSpec, Mapping[sympy.Symbol, sympy.Expr]]]  # a composite's parts and the widths they have in it


def summed(uses: Uses, part: Callable[[OpSpec], sympy.Expr | int]) -> sympy.Expr:
    """One of the rows' polynomials, summed over a composite's parts."""
    return sympy.Add(*(sympy.sympify(part(spec)).subs(widths.items(), simultaneous=True) for spec, widths in uses))
