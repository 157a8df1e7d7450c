"""Casts to narrow floats as the program has them: values rounded to nearest even, derivatives passed on as they are."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flint import arb
from jax.extend.core import JaxprEqn

from refgrad.verify.exact.arrays import Array, elementwise
from refgrad.verify.exact.scalars.functions import Function
from refgrad.verify.exact.scalars.germ import CONSTANT, PRECISION, ZERO, Germ, Undecided

_BY_BITS = {(8, 7): "bfloat16", (5, 10): "float16", (8, 23): "float32", (4, 3): "float8_e4m3fn", (5, 2): "float8_e5m2"}

# primitive → the dtype that it rounds to
NARROW: dict[str, Callable[[JaxprEqn], str]] = {
    "convert_element_type": lambda eqn: jnp.dtype(eqn.params["new_dtype"]).name,
    "reduce_precision": lambda eqn: _BY_BITS.get((eqn.params["exponent_bits"], eqn.params["mantissa_bits"]), ""),
}


class Rounding(Function):
    """The nearest number of a dtype."""

    def pull_one(self, i: int, ct: Any, y: Any, *xs: Any) -> Any:
        """Return the cotangent as it is."""
        del i, y, xs
        return ct

    def tangent(self, apply: Callable, tangents: Sequence[Any], y: Any, *xs: Any) -> Any:
        """Return the tangent as it is."""
        del apply, y, xs
        return tangents[0]


def rounded(x: Any, dtype: str, casts: Collection[str]) -> Any:
    """Return floats rounded to a dtype that is named in `casts`, anything else as it is."""
    if dtype not in casts or not isinstance(x, Array):
        return x

    def one(x: Any) -> Any:
        if isinstance(x, Germ):
            start = x.terms.get(CONSTANT, ZERO)
            return x + one(start) + -start
        if isinstance(x, Undecided) or not isinstance(x, arb) or not x.is_finite():
            return x
        ends = [np.float64(float(end)).astype(dtype).astype(np.float64) for end in (x.lower(), x.upper())]
        return arb(float(ends[0])) if ends[0] == ends[1] else Undecided(PRECISION)

    return elementwise(Rounding(one), x)
