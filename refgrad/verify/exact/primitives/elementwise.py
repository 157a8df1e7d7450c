"""Operations on each element: of scalars by `scalars`, of integers and truth values by NumPy."""

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from flint import acb, arb
from jax.extend.core import JaxprEqn

from refgrad.jaxpr.avals import dtype_of
from refgrad.verify.exact.arrays import Array, NotDecided, concrete, elementwise, full, move, reaches_a_tie
from refgrad.verify.exact.primitives.integers import INTEGERS
from refgrad.verify.exact.scalars.arithmetic import SQUARE, power_of
from refgrad.verify.exact.scalars.decisions import Held, Select, choose
from refgrad.verify.exact.scalars.functions import Function
from refgrad.verify.exact.scalars.germ import ONE, TIE, ZERO, Undecided, limit
from refgrad.verify.exact.scalars.table import SCALARS, TO_COMPLEX, round_away, round_even, truncate

ALIASES = {"add_any": "add", "lt_to": "lt", "le_to": "le", "eq_to": "eq"}


def as_array(x: Any) -> Array:
    """Return an array of scalars: floats, integers and truth values at their exact values."""
    if isinstance(x, Array):
        return x
    x = np.asarray(x)
    if x.dtype == np.bool_:
        return Array(x.astype(object))
    if jnp.issubdtype(x.dtype, np.complexfloating):
        make, x = acb, x.astype(np.complex128)
    elif jnp.issubdtype(x.dtype, np.integer):
        make, x = (lambda n: arb(int(n))), x.astype(object)
    else:
        make, x = arb, x.astype(np.float64)
    return Array(np.asarray(np.frompyfunc(make, 1, 1)(x), object))


def each(name: str, eqn: JaxprEqn, *xs: Any) -> Any:
    """Apply the scalar function where an operand is an array of scalars, NumPy's where none is."""
    if any(isinstance(x, Array) for x in xs) or name not in INTEGERS:
        return elementwise(SCALARS[name], *map(as_array, xs))
    with np.errstate(all="ignore"):
        out = INTEGERS[name](*xs)
    return np.asarray(out, dtype_of(eqn.outvars[0]))


def sign_of(eqn: JaxprEqn, x: Any) -> Any:
    """−1, 0 or 1; of complex numbers x/|x|, which is not analytic."""
    if np.issubdtype(dtype_of(eqn.invars[0]), np.complexfloating):
        return x / elementwise(TO_COMPLEX, elementwise(SCALARS["abs"], x))
    return each("sign", eqn, x)


def integer_pow(eqn: JaxprEqn, x: Any) -> Any:
    """x^y for a fixed integer y."""
    y = eqn.params["y"]
    f = SQUARE if y == 2 else power_of(Fraction(y))
    return elementwise(f, x) if isinstance(x, Array) else np.asarray(x**y, x.dtype)


def select_n(eqn: JaxprEqn, which: Any, *cases: Any) -> Any:
    """One of the cases, element by element."""
    del eqn
    if isinstance(which, Array) and (which.pull is None or not any(isinstance(c, Array) for c in cases)):
        try:
            which = concrete(which)
        except NotDecided:
            if not any(isinstance(c, Array) for c in cases):
                raise
    if isinstance(which, Array):
        return elementwise(Select(choose), which, *map(as_array, cases))
    return move(lambda *xs: np.choose(np.asarray(which, int), xs), *cases)


def polynomial(eqn: JaxprEqn, x: Array, *coefficients: Array) -> Array:
    """c₀ + c₁x + c₂x² + …, by Horner."""
    del eqn
    result = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        result = result * x + c
    return result


def round_(eqn: JaxprEqn, x: Array) -> Array:
    """The nearest integer; halves go away from 0, or to the even one."""
    return elementwise(Function(round_away if int(eqn.params["rounding_method"]) == 0 else round_even), x)


def convert(eqn: JaxprEqn, x: Any) -> Any:
    """A change of dtype: of values where one side is not real, else nothing."""
    old, new = dtype_of(eqn.invars[0]), np.dtype(eqn.params["new_dtype"])
    inexact = jnp.issubdtype(new, np.inexact)
    if not isinstance(x, Array):
        return as_array(x.astype(np.int64) if x.dtype == np.bool_ else x) if inexact else x.astype(new)
    if old == np.bool_:
        if not inexact:
            return concrete(x).astype(new)
        return elementwise(Select(choose), x, Array(full((), ZERO)), Array(full((), ONE)))
    if new == np.bool_:
        return elementwise(SCALARS["ne"], x, Array(full((), ZERO)))
    if not inexact:
        return integers(x).astype(new)
    real = not jnp.issubdtype(new, np.complexfloating)
    if jnp.issubdtype(old, np.complexfloating) and real:
        return elementwise(SCALARS["real"], x)
    return x if real or jnp.issubdtype(old, np.complexfloating) else elementwise(TO_COMPLEX, x)


def integers(x: Array) -> np.ndarray:
    """Return the scalars rounded towards zero as NumPy's integers. Raises NotDecided where they are not certain."""
    whole = elementwise(Function(truncate), x)
    for n in whole.data.ravel():
        if isinstance(n, Undecided):
            raise NotDecided(n.why)
    if whole.pull is not None and reaches_a_tie(whole):
        raise NotDecided(TIE)
    found = [int(n.unique_fmpz()) if n.is_finite() else 0 for n in whole.data.ravel()]
    return np.array(found, np.int64).reshape(x.shape)


def stop_gradient(eqn: JaxprEqn, x: Any) -> Any:
    """The limit, which does not move; an object of its own, which is not equal to what moves."""
    del eqn
    return elementwise(Held(lambda v: limit(v) * ONE), x) if isinstance(x, Array) else x


def bits_of(eqn: JaxprEqn, x: Any) -> Any:
    """The same bits as another dtype: of integers alone, whose values are known."""
    if isinstance(x, Array):
        raise NotImplementedError("the bits of a float have no meaning in ℝ")
    moved = np.ascontiguousarray(x).view(np.dtype(eqn.params["new_dtype"]))
    return as_array(moved) if jnp.issubdtype(moved.dtype, np.inexact) else moved


RULES: dict[str, Callable[..., Any]] = {
    **{name: partial(each, name) for name in {*SCALARS, *INTEGERS}},
    **{alias: partial(each, name) for alias, name in ALIASES.items()},
    "sign": sign_of,
    "integer_pow": integer_pow,
    "select_n": select_n,
    "polynomial": polynomial,
    "round": round_,
    "convert_element_type": convert,
    "reduce_precision": lambda eqn, x: x,
    "bitcast_convert_type": bits_of,
    "stop_gradient": stop_gradient,
}
