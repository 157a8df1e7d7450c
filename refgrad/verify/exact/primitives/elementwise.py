"""Operations on each element: of scalars by `functions`, of integers and truth values by NumPy."""

import functools
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from flint import acb, arb
from jax.extend.core import JaxprEqn

from refgrad.jaxpr.avals import dtype_of
from refgrad.verify.exact import elementary as fn
from refgrad.verify.exact.arithmetic import ADD, DIV, MUL, NEG, SQUARE, SUB, Linear, power_of
from refgrad.verify.exact.arrays import Array, NotDecided, concrete, elementwise, full, move, reaches_a_tie
from refgrad.verify.exact.functions import Function
from refgrad.verify.exact.germ import (
    ABSENT,
    CORNER,
    HALF,
    NAN,
    ONE,
    PRECISION,
    TIE,
    ZERO,
    Germ,
    Undecided,
    compare,
    limit,
    same,
    sign,
)
from refgrad.verify.exact.special_functions import ANALYTIC, BESSEL_I


class Decision(Function):
    """A truth value of scalars or of other truth values: the cotangent of one that changes at once is undecided."""

    def tangent(self, apply: Callable, tangents: Sequence[Any], y: Any, *xs: Any) -> Any:
        """Return a mark where the truth value changes at once along a direction: an undecided scalar, else absent."""
        marks = (x.still() if t is None else t for t, x in zip(tangents, xs, strict=True))
        return apply(Held(functools.partial(self._mark, len(xs))), y, *xs, *marks)

    def _mark(self, count: int, y: Any, *operands: Any) -> Any:
        xs, marks = operands[:count], operands[count:]
        cts = (m if isinstance(x, bool) else ONE for m, x in zip(marks, xs, strict=True))
        backs = (self._pull(i, ct, y, *xs) for i, ct in enumerate(cts))
        return next((b for b in backs if isinstance(b, Undecided)), ABSENT)

    def _pull(self, i: int, ct: Any, y: Any, *xs: Any) -> Any:
        if isinstance(xs[i], bool):
            return ABSENT if self(*xs[:i], not xs[i], *xs[i + 1 :]) is y else ct
        if ct is ABSENT or len(xs) == 1:
            return ABSENT
        a, b = xs
        equal = False if a is b or not (a.is_finite() and b.is_finite()) else same(a, b)
        return equal if isinstance(equal, Undecided) else Undecided(TIE) if equal else ABSENT


class Held(Function):
    """A function that is held: no cotangent returns through it, and no tangent passes."""

    def tangent(self, apply: Callable, tangents: Sequence[Any], y: Any, *xs: Any) -> Any:
        """Return None."""
        del apply, tangents, y, xs

    def _pull(self, i: int, ct: Any, y: Any, *xs: Any) -> Any:
        del i, ct, y, xs
        return ABSENT


class Marked(Function):
    """A truth value, undecided where a mark is; a cotangent returns to the truth value alone."""

    def _pull(self, i: int, ct: Any, y: Any, *xs: Any) -> Any:
        del y, xs
        return ABSENT if i else ct


def _by_sign(holds: Callable[[Any], bool]) -> Decision:
    def value(a: Any, b: Any) -> Any:
        s = compare(a, b)
        return s if isinstance(s, Undecided) else bool(holds(s))

    return Decision(value)


def _equal(a: Any, b: Any) -> Any:
    if isinstance(a, bool) and isinstance(b, bool):
        return a is b
    return same(a, b)


def _not(x: Any) -> Any:
    return x if isinstance(x, Undecided) else not x


def _and(a: Any, b: Any) -> Any:
    if a is False or b is False:
        return False
    return next((x for x in (a, b) if isinstance(x, Undecided)), True)


def _finite(x: Any) -> Any:
    return x if isinstance(x, Undecided) else x.is_finite()


def _choose(which: Any, *cases: Any) -> Any:
    if isinstance(which, Undecided):
        return cases[0] if all(c is cases[0] for c in cases) else which
    return cases[int(which)]


class Select(Function):
    """One of several scalars by a truth value."""

    def tangent(self, apply: Callable, tangents: Sequence[Any], y: Any, *xs: Any) -> Any:
        """Return the tangent of the scalar that is chosen, undecided where that changes at once."""
        del y
        moving = (x.still() if t is None else t for t, x in zip(tangents[1:], xs[1:], strict=True))
        which, mark = xs[0], tangents[0]
        if mark is not None:
            which = apply(Marked(lambda x, m: m if isinstance(m, Undecided) else x), which, mark)
        return apply(self, which, *moving)

    def _pull(self, i: int, ct: Any, y: Any, *xs: Any) -> Any:
        del y
        alike = all(c is xs[1] for c in xs[1:])
        if ct is ABSENT or (i == 0 and alike):
            return ABSENT
        if i == 0:  # a cotangent of any value finds the ties behind the truth value
            return ONE
        if isinstance(xs[0], Undecided) and not alike:
            return Undecided(TIE)
        return ct if i == (1 if alike else xs[0] + 1) else ABSENT


def _larger(a: Any, b: Any) -> Any:
    s = compare(a, b)
    return s if isinstance(s, Undecided) else NAN if s != s else a if s >= 0 else b


def _smaller(a: Any, b: Any) -> Any:
    s = compare(a, b)
    return s if isinstance(s, Undecided) else NAN if s != s else a if s <= 0 else b


def _sign(x: Any) -> Any:
    s = sign(x)
    return s if isinstance(s, Undecided) else arb(s)


def _floor(x: Any) -> Any:
    """Return the largest integer that is not above a real scalar."""
    start = limit(x)
    if not start.is_finite():
        return start
    n = start.floor().unique_fmpz()
    if n is None:
        return Undecided(PRECISION)
    if start.is_exact() and start == n:
        s = sign(x - start)
        return s if isinstance(s, Undecided) else arb(n) if s >= 0 else arb(n - 1)
    return arb(n)


def _truncate(x: Any) -> Any:
    s = sign(x)
    return s if isinstance(s, Undecided) else NAN if s != s else _floor(x) if s >= 0 else -_floor(-x)


def _remainder(a: Any, b: Any) -> Any:
    return a - b * _truncate(fn.divide(a, b))


def _round_away(x: Any) -> Any:
    s = sign(x)
    return s if isinstance(s, Undecided) else NAN if s != s else _floor(x + HALF) if s >= 0 else -_floor(HALF - x)


def _round_even(x: Any) -> Any:
    n = _floor(x + HALF)
    half = same(n - x, HALF)
    if any(isinstance(y, Undecided) for y in (n, half)):
        return n if isinstance(n, Undecided) else half
    return n - 1 if half and n.is_finite() and not (n / 2).is_integer() else n


def _power(x: Any, y: Any) -> Any:
    """Return x^y: by the exponent where that is an exact ball, else exp(y log x)."""
    if isinstance(y, Undecided) or isinstance(x, Undecided):
        return y if isinstance(y, Undecided) else x
    if isinstance(y, arb) and y.is_exact() and y.is_finite():
        r = y.fmpq()
        return fn.raised(x, Fraction(int(r.numer()), int(r.denom())))
    if isinstance(x, arb | acb) and x.is_zero():
        s = sign(y)
        return s if isinstance(s, Undecided) else ZERO if s > 0 else arb("inf") if s < 0 else NAN
    return fn.EXP(y * fn.LOG(x))


def _cbrt(x: Any) -> Any:
    s = sign(x)
    if isinstance(s, Undecided):
        return s
    return fn.raised(x, Fraction(1, 3)) if s >= 0 else -fn.raised(-x, Fraction(1, 3)) if s < 0 else NAN


def _bessel(n: int, x: Any) -> Any:
    return fn.EXP(-fn.absolute(x)) * BESSEL_I[n](x)


def _complex(a: Any, b: Any) -> Any:
    return a * acb(1) + b * acb(0, 1)


class RealPart(Linear):
    """A linear function from ℂ or to it: of real operands the real part of a cotangent returns."""

    pull = Function.pull


class Modulus(Function):
    """|x|, whose cotangent is ct · conj(x)/|x|."""

    def tangent(self, apply: Callable, tangents: Sequence[Any], y: Any, *xs: Any) -> Any:
        """Return Re(conj(x) ẋ)/|x|, of real operands ±ẋ."""
        if acb not in map(type, xs[0].data.ravel()):
            return super().tangent(apply, tangents, y, *xs)
        return apply(SCALARS["real"], apply(SCALARS["conj"], xs[0]) * tangents[0]) / y

    def pull_one(self, i: int, ct: Any, y: Any, *xs: Any) -> Any:
        """Return the cotangent of x."""
        return Undecided(CORNER) if y.contains(0) else ct * _conjugate(xs[i]) / y


def _conjugate(x: Any) -> Any:
    if isinstance(x, Germ):
        return x.map(lambda c: c.conjugate() if isinstance(c, acb) else c)
    return x.conjugate() if isinstance(x, acb) else x


def scaled(f: Function, factor: Callable[[], Any], inside: bool) -> Function:
    """The function f(k·x), or k·f(x), of a constant k at the precision in force."""
    if inside:
        return Function(lambda x: f(x * factor()))
    return Function(lambda x: f(x) * factor())


SCALARS: dict[str, Function] = {
    **ANALYTIC,
    "add": ADD,
    "sub": SUB,
    "mul": MUL,
    "div": DIV,
    "neg": NEG,
    "square": SQUARE,
    "one_minus_square": Function(lambda x: (ONE - x) * (x + ONE)),
    "real": RealPart(fn.real, lambda ct, *_: ct * acb(1)),
    "imag": RealPart(fn.imaginary, lambda ct, *_: ct * acb(0, -1)),
    "conj": RealPart(_conjugate, lambda ct, *_: _conjugate(ct)),
    "complex": RealPart(_complex, lambda ct, *_: ct, lambda ct, *_: ct * acb(0, 1)),
    "abs": Modulus(fn.absolute),
    "sqrt": power_of(Fraction(1, 2)),
    "rsqrt": power_of(Fraction(-1, 2)),
    "exp2": scaled(fn.EXP, arb.const_log2, inside=True),
    "log2": scaled(fn.LOG, lambda: 1 / arb.const_log2(), inside=False),
    "pow": Function(_power),
    "cbrt": Function(_cbrt),
    "atan2": Function(fn.angle),
    "bessel_i0e": Function(partial(_bessel, 0)),
    "bessel_i1e": Function(partial(_bessel, 1)),
    "sign": Function(_sign),
    "floor": Function(_floor),
    "ceil": Function(lambda x: -_floor(-x)),
    "rem": Function(_remainder),
    "max": Function(_larger),
    "min": Function(_smaller),
    "clamp": Function(lambda low, x, high: _smaller(_larger(x, low), high)),
    "eq": Decision(_equal),
    "ne": Decision(lambda a, b: _not(_equal(a, b))),
    "lt": _by_sign(lambda s: s < 0),
    "le": _by_sign(lambda s: s <= 0),
    "gt": _by_sign(lambda s: s > 0),
    "ge": _by_sign(lambda s: s >= 0),
    "is_finite": Decision(_finite),
    "not": Decision(_not),
    "and": Decision(_and),
    "or": Decision(lambda a, b: _not(_and(_not(a), _not(b)))),
    "xor": Decision(lambda a, b: next((x for x in (a, b) if isinstance(x, Undecided)), a is not b)),
}
ALIASES = {"add_any": "add", "lt_to": "lt", "le_to": "le", "eq_to": "eq"}


def _quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a / b towards zero, as XLA has it for integers; −1 for a division by 0."""
    safe = np.where(b == 0, 1, b)
    q = np.abs(a) // np.abs(safe) * np.sign(a) * np.sign(safe)
    return np.where(b == 0, -1, q).astype(a.dtype)


def _shift(right: bool, arithmetic: bool = False) -> Callable[..., np.ndarray]:
    def shifted(x: np.ndarray, n: np.ndarray) -> np.ndarray:
        bits = 8 * x.dtype.itemsize
        source = x if arithmetic else x.view(f"u{x.dtype.itemsize}")
        count = n.astype(source.dtype)
        far = (count >= bits) | (count < 0)
        moved = (np.right_shift if right else np.left_shift)(
            source, np.where(far, bits - 1 if arithmetic else 0, count)
        )
        return (moved if arithmetic else np.where(far, 0, moved).astype(source.dtype)).view(x.dtype)

    return shifted


INTEGERS: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": _quotient,
    "rem": np.fmod,
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "square": np.square,
    "max": np.maximum,
    "min": np.minimum,
    "clamp": lambda low, x, high: np.clip(x, low, high),
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "pow": np.power,
    "mulhi": lambda a, b: (a.astype(object) * b.astype(object)) >> (8 * a.dtype.itemsize),
    "population_count": np.bitwise_count,
    "clz": lambda x: np.array(8 * x.dtype.itemsize - np.vectorize(int.bit_length, otypes=[int])(x.astype(object))),
    "shift_left": _shift(right=False),
    "shift_right_logical": _shift(right=True),
    "shift_right_arithmetic": _shift(right=True, arithmetic=True),
}


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
        return elementwise(DIV, x, elementwise(TO_COMPLEX, elementwise(SCALARS["abs"], x)))
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
        return elementwise(Select(_choose), which, *map(as_array, cases))
    return move(lambda *xs: np.choose(np.asarray(which, int), xs), *cases)


def polynomial(eqn: JaxprEqn, x: Array, *coefficients: Array) -> Array:
    """c₀ + c₁x + c₂x² + …, by Horner."""
    del eqn
    result = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        result = elementwise(SCALARS["add"], elementwise(SCALARS["mul"], result, x), c)
    return result


def round_(eqn: JaxprEqn, x: Array) -> Array:
    """The nearest integer; halves go away from 0, or to the even one."""
    return elementwise(Function(_round_away if int(eqn.params["rounding_method"]) == 0 else _round_even), x)


def convert(eqn: JaxprEqn, x: Any) -> Any:
    """A change of dtype: of values where one side is not real, else nothing."""
    old, new = dtype_of(eqn.invars[0]), np.dtype(eqn.params["new_dtype"])
    inexact = jnp.issubdtype(new, np.inexact)
    if not isinstance(x, Array):
        return as_array(x.astype(np.int64) if x.dtype == np.bool_ else x) if inexact else x.astype(new)
    if old == np.bool_:
        if not inexact:
            return concrete(x).astype(new)
        return elementwise(Select(_choose), x, Array(full((), ZERO)), Array(full((), ONE)))
    if new == np.bool_:
        return elementwise(SCALARS["ne"], x, Array(full((), ZERO)))
    if not inexact:
        return integers(x).astype(new)
    real = not jnp.issubdtype(new, np.complexfloating)
    if jnp.issubdtype(old, np.complexfloating) and real:
        return elementwise(SCALARS["real"], x)
    return x if real or jnp.issubdtype(old, np.complexfloating) else elementwise(TO_COMPLEX, x)


TO_COMPLEX = RealPart(lambda x: x * acb(1), lambda ct, *_: ct)


def integers(x: Array) -> np.ndarray:
    """Return the scalars rounded towards zero as NumPy's integers. Raises NotDecided where they are not certain."""
    whole = elementwise(Function(_truncate), x)
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
