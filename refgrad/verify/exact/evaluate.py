"""A program evaluated on arrays of scalars: control flow in place, every other equation by the table of meanings."""

import math
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from refgrad.jaxpr.avals import dtype_of, shape_of
from refgrad.jaxpr.calls import linear_system
from refgrad.jaxpr.programs import STOP_GRADIENT, line
from refgrad.jaxpr.unroll import Unrolled
from refgrad.verify.exact.arrays import Array, concrete, full, move
from refgrad.verify.exact.operations import Budget
from refgrad.verify.exact.primitives import TABLE, WITH_PROGRAMS
from refgrad.verify.exact.primitives.elementwise import as_array
from refgrad.verify.exact.primitives.linalg import solve
from refgrad.verify.exact.rounding import NARROW, rounded
from refgrad.verify.exact.scalars.germ import ONE

# bits that JAX itself computes, by their values; so it does whatever is done to keys
BITS = {
    "random_bits",
    "random_fold_in",
    "random_seed",
    "random_split",
    "random_unwrap",
    "random_wrap",
    "rng_bit_generator",
    "threefry2x32",
}


class NoMeaning(NotImplementedError):
    """An equation that exact arithmetic cannot evaluate.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from refgrad.verify.exact import NoMeaning, exact
      >>> try:
      ...     exact(lambda x: jax.pure_callback(abs, x, x), jnp.ones(())).value
      ... except NoMeaning:
      ...     print("no meaning")
      no meaning
    """


class Evaluator(Unrolled):
    """Interpreter that evaluates a program exactly, in a limited number of operations.

    Casts to the dtypes named in `casts` round.
    """

    def __init__(self, casts: Collection[str] = (), most: float = math.inf, stop_gradient: bool = False) -> None:
        super().__init__()
        self.casts, self.budget, self.stop_gradient = casts, Budget(most), stop_gradient

    def constant(self, value: Any, aval: Any) -> Any:
        """Return a literal or constant at its exact value."""
        return lift(value)

    def equation(self, eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
        """Return the outputs of one equation. Raises NoMeaning, naming it, for one without a rule."""
        name = eqn.primitive.name
        if self.runs_in_place(eqn):
            return self.unroll(eqn, values)
        if (system := linear_system(eqn, values)) is not None:
            return self._solve(*system)
        self.budget.spend(eqn)
        if name == STOP_GRADIENT and not self.stop_gradient:
            out = values[0]
        elif name in BITS or any(map(is_key, values)):
            out = self._bits(eqn, values)
        elif name in TABLE or name in WITH_PROGRAMS:
            rule = TABLE[name] if name in TABLE else partial(WITH_PROGRAMS[name], self)
            try:
                out = rule(eqn, *values)
            except NoMeaning:
                raise
            except NotImplementedError as reason:
                raise NoMeaning(f"{reason} ({name} at {line(eqn) or 'an unknown line'})") from None
        else:
            raise NoMeaning(f"exact arithmetic has no meaning for {name} at {line(eqn) or 'an unknown line'}")
        if self.casts and name in NARROW:
            out = rounded(out, NARROW[name](eqn), self.casts)
        return out if eqn.primitive.multiple_results else [out]

    def index(self, values: Any, i: int) -> Any:
        """Return entry i along the leading axis."""
        return values[i]

    def stack(self, values: Sequence[Any], result: Any) -> Any:
        """Return values along a new leading axis."""
        return move(lambda *ds: np.stack(ds), *values) if values else lift(np.zeros(shape_of(result), dtype_of(result)))

    def concrete(self, value: Any) -> np.ndarray:
        """Return a number or truth values that decide what runs. Raises NotDecided where one is not decided."""
        return concrete(value)

    def where(self, condition: np.ndarray, one: Any, other: Any) -> Any:
        """Return `one` where the condition holds, along the leading axes, else `other`."""
        return move(
            lambda a, b: np.where(condition.reshape(condition.shape + (1,) * (a.ndim - condition.ndim)), a, b),
            one,
            other,
        )

    def condition(self, program: ClosedJaxpr | Jaxpr) -> Callable[..., list]:
        """Return a loop's condition as a function."""
        return self.call(program)

    def _bits(self, eqn: JaxprEqn, values: Sequence[Any]) -> Any:
        out = self.bind(eqn, values)
        out = [x if is_key(x) else np.asarray(x) for x in out]
        return out if eqn.primitive.multiple_results else out[0]

    def _solve(self, product: Jaxpr | ClosedJaxpr, constants: Sequence[Any], right: Sequence[Any]) -> list[Any]:
        """Return x of A x = b, where the program tells A's columns: its products with the unit vectors."""
        shapes = [b.shape for b in right]
        ends = np.cumsum([b.data.size for b in right])
        columns = []
        for k in range(ends[-1]):
            unit = full((ends[-1],))
            unit[k] = ONE
            parts = [Array(u.reshape(s)) for u, s in zip(np.split(unit, ends[:-1]), shapes, strict=True)]
            columns.append(self.call(product)(*constants, *parts))
        flat = [move(lambda *ds: np.concatenate([d.ravel() for d in ds]), *c) for c in (*columns, right)]
        matrix = move(lambda *ds: np.stack(ds, 1), *flat[:-1])
        x = solve(matrix, flat[-1][:, None])
        starts = [0, *ends[:-1]]
        return [
            move(lambda d, s=s, e=e, n=n: d[s:e, 0].reshape(n), x) for s, e, n in zip(starts, ends, shapes, strict=True)
        ]


def is_key(value: Any) -> bool:
    """Return True for random keys, which JAX alone can move."""
    return jnp.issubdtype(getattr(value, "dtype", np.float64), jax.dtypes.prng_key)


def lift(value: Any) -> Any:
    """Return floats and complex numbers as exact scalars, integers and truth values as NumPy's, keys as they are."""
    if isinstance(value, Array) or is_key(value):
        return value
    x = np.asarray(value)
    return as_array(x) if jnp.issubdtype(x.dtype, np.inexact) else x
