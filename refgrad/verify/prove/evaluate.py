"""A program evaluated on symbols: the tables of `refgrad.verify.exact`, with functions and decisions of its own."""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from flint import acb, arb, fmpq
from jax.extend.core import JaxprEqn

from refgrad.jaxpr.programs import line
from refgrad.verify.exact.arrays import Array, NotDecided, elementwise, move
from refgrad.verify.exact.evaluate import Evaluator, NoMeaning, lift
from refgrad.verify.exact.primitives.elementwise import as_array, convert
from refgrad.verify.exact.scalars.functions import Function
from refgrad.verify.exact.scalars.germ import Undecided, compare
from refgrad.verify.exact.scalars.table import SCALARS
from refgrad.verify.prove.symbol import FUNCTIONS, ConcolicRun, Symbol

Constants = Mapping[float, Callable[[ConcolicRun], Symbol]]


class Concolic(Evaluator):
    """Interpreter of a program on symbols. `identified` maps some constants to their replacements."""

    def __init__(self, run: ConcolicRun, identified: Constants) -> None:
        super().__init__()
        self.symbols, self.identified = run, identified
        self.constants: dict[float, float] = {}
        """The constants met, each with the unit roundoff of its dtype."""

    def constant(self, value: Any, aval: Any) -> Any:
        """Return a literal or constant of the program as symbols."""
        out = lift(value)
        if isinstance(out, Array) and out.data.size and isinstance(out.data.flat[0], arb | acb):
            eps = float(np.finfo(aval.dtype).eps) if np.issubdtype(aval.dtype, np.floating) else 2.0**-7
            return Array(np.asarray(np.frompyfunc(lambda x: self._constant(x, eps), 1, 1)(out.data), object))
        return out

    def _constant(self, x: Any, eps: float) -> Any:
        if not isinstance(x, arb) or not x.is_finite():
            return x
        value = float(x.mid())
        self.constants.setdefault(value, eps)
        return self.identified[value](self.symbols) if value in self.identified else self.symbols.constant(x.fmpq())

    def equation(self, eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
        """Return the outputs of one equation. Raises NoMeaning, naming it, for one without a rule."""
        name = eqn.primitive.name
        if name in UNKNOWN:
            raise NoMeaning(f"no symbolic meaning for {name} at {line(eqn) or 'an unknown line'}")
        try:
            if name in OWN and any(isinstance(x, Array) for x in values):
                out: Sequence[Any] = [OWN[name](eqn, *map(as_array, values))]
            else:
                out = super().equation(eqn, values)
        except NoMeaning:
            raise
        except (NotImplementedError, TypeError, AttributeError) as reason:
            raise NoMeaning(f"no symbolic meaning: {reason} ({name} at {line(eqn) or 'an unknown line'})") from None
        return [self._symbolic(x) for x in out]

    def _symbolic(self, x: Any) -> Any:
        """Return an array with its finite balls as symbols."""
        if isinstance(x, Array) and any(isinstance(v, arb) for v in x.data.ravel()):
            x.data = np.asarray(np.frompyfunc(self._lifted, 1, 1)(x.data), object)
        return x

    def _lifted(self, x: Any) -> Any:
        if not isinstance(x, arb) or not x.is_finite():
            return x
        if not x.is_exact():
            raise NoMeaning("a constant is not exact")
        return self.symbols.constant(x.fmpq())


class Smooth(Function):
    """A function of symbols and, of an entry (cotangent, result, operands), the cotangent of each operand."""

    def __init__(self, value: Callable[..., Any], *pulls: Callable[..., Any]) -> None:
        super().__init__(value)
        vars(self).update(pulls=pulls)

    pulls: tuple[Callable[..., Any], ...]

    def pull_one(self, i: int, ct: Any, y: Any, *xs: Any) -> Any:
        """Return the cotangent of argument i of one entry."""
        return self.pulls[i](ct, y, *xs)


def _exp(x: Symbol) -> Any:
    return x.apply("exp", arb.exp)


def _log(x: Symbol) -> Any:
    return x.run.constant(0) if x.exact == 1 else x.apply("log", arb.log)


def _sqrt(x: Symbol) -> Any:
    return _root(x, 2)


def _root(x: Symbol, n: int) -> Any:
    return x if x.exact == 0 else x.apply("root", lambda ball: ball.root(n), by=n)


def _raised(x: Symbol, r: Fraction) -> Any:
    base = x if r.denominator == 1 else _root(x, r.denominator)
    return base**r.numerator


def _power(x: Any, y: Any) -> Any:
    if isinstance(y, Symbol) and y.exact is not None and y.exact.q < 1000:
        return _raised(x, Fraction(int(y.exact.p), int(y.exact.q)))
    return _exp(y * _log(x))


def _log2(x: Any) -> Symbol:
    return _log(x.run.constant(2))


def sqrt_pi(run: ConcolicRun) -> Symbol:
    """Return √π."""
    return run.apply("√π", FUNCTIONS["√π"][0])


def _known(name: str) -> Callable[..., Any]:
    value = FUNCTIONS[name][0]
    return lambda x, *others: x.apply(name, value, *others)


def _sign(x: Any) -> int:
    s = x.sign() if isinstance(x, Symbol) else compare(x, arb(0))
    return _decided(s)


def _decided(s: Any) -> int:
    if isinstance(s, Undecided) or s != s:
        raise NotDecided(s.why if isinstance(s, Undecided) else "NaN")
    return s


def _order(a: Any, b: Any) -> int:
    if a is b:
        return 0
    d = a - b
    if isinstance(d, arb) and isinstance(a, arb) and isinstance(b, arb):
        return _decided(compare(a, b))
    return _sign(d)


def _where(holds: Callable[[int], bool]) -> Callable[..., Any]:
    """The rule of a comparison: truth values of NumPy's, as the ball decides."""

    def rule(eqn: JaxprEqn, a: Array, b: Array) -> Any:
        del eqn
        return np.asarray(np.frompyfunc(lambda x, y: bool(holds(_order(x, y))), 2, 1)(a.data, b.data), bool)

    return rule


def _equal(equal: bool) -> Callable[..., Any]:
    """The rule of an equality, which holds where two symbols are equal for all arguments."""

    def same(x: Any, y: Any) -> bool:
        if x is y or isinstance(x, bool):
            return (x == y) is equal
        d = x - y
        if not isinstance(d, Symbol):
            return (_decided(compare(x, y)) == 0) is equal
        if d.ball.contains(0) and not d.is_zero():
            raise NotDecided("a tie")
        return d.ball.contains(0) is equal

    return lambda eqn, a, b: np.asarray(np.frompyfunc(same, 2, 1)(a.data, b.data), bool)


def _chosen(of: Callable[[int], bool]) -> Callable[..., Any]:
    """The rule of a maximum or minimum: the entries that the comparison picks are moved."""
    picks = np.frompyfunc(lambda x, y: of(_order(x, y)), 2, 1)

    def rule(eqn: JaxprEqn, a: Array, b: Array) -> Any:
        del eqn
        first = np.asarray(picks(a.data, b.data), bool)
        return move(lambda x, y: np.where(first, x, y), a, b)

    return rule


def _clamp(eqn: JaxprEqn, low: Array, x: Array, high: Array) -> Any:
    return _chosen(lambda s: s < 0)(eqn, _chosen(lambda s: s >= 0)(eqn, x, low), high)


def _steps(of: Callable[[Any], Any]) -> Callable[..., Any]:
    """The rule of a function that is constant between its jumps."""

    def step(x: Any) -> Any:
        return x.run.constant(of(x)) if isinstance(x, Symbol) else x

    return lambda eqn, x: Array(np.asarray(np.frompyfunc(step, 1, 1)(x.data), object))


def _floor(x: Symbol) -> int:
    n = x.ball.floor().unique_fmpz()
    if n is None or ((x.ball - n).contains(0) and x.exact is None):
        raise NotDecided("a tie")
    if x.exact is None:
        x.run.decisions += [bool(b) for b in np.unpackbits(np.array([int(n)], np.int64).view(np.uint8))]
    return int(n)


def _nearest(x: Symbol) -> int:
    moved = x + x.run.constant(fmpq(1, 2))
    if moved.exact is not None and moved.exact.q == 1:
        raise NotDecided("a tie")
    return _floor(moved)


def _truncated(q: Symbol) -> int:
    return _floor(q) if _sign(q) >= 0 else -_floor(-q)


def _converted(eqn: JaxprEqn, x: Array) -> Any:
    """The rule of a change of dtype: symbols to integers are rounded towards zero; anything else as `exact` has it."""
    new = np.dtype(eqn.params["new_dtype"])
    if not np.issubdtype(new, np.integer) or not all(isinstance(v, Symbol) for v in x.data.ravel()):
        return convert(eqn, x)
    return np.asarray(np.frompyfunc(_truncated, 1, 1)(x.data), new)


def _each(name: str, f: Smooth) -> Callable[..., Any]:
    """The rule of a function of each entry: at infinities, that of `exact`."""

    def value(*xs: Any) -> Any:
        return f.value(*xs) if all(isinstance(x, Symbol) for x in xs) else SCALARS[name](*xs)

    own = Smooth(value, *f.pulls)
    return lambda eqn, *xs: elementwise(own, *xs)


def _power_slope(ct: Any, y: Any, x: Any, n: Any) -> Any:
    return ct * n * _power(x, n - 1)


def _two_over_sqrt_pi(x: Symbol) -> Symbol:
    return x.run.constant(2) / sqrt_pi(x.run)


def _erf_slope(ct: Any, x: Any) -> Any:
    return ct * _two_over_sqrt_pi(x) * _exp(-(x * x))


SMOOTH: dict[str, Smooth] = {
    "exp": Smooth(_exp, lambda ct, y, x: ct * y),
    "exp2": Smooth(lambda x: _exp(x * _log2(x)), lambda ct, y, x: ct * y * _log2(x)),
    "expm1": Smooth(lambda x: _exp(x) - 1, lambda ct, y, x: ct * (y + 1)),
    "log": Smooth(_log, lambda ct, y, x: ct / x),
    "log2": Smooth(lambda x: _log(x) / _log2(x), lambda ct, y, x: ct / (x * _log2(x))),
    "log1p": Smooth(lambda x: _log(x + 1), lambda ct, y, x: ct / (x + 1)),
    "sqrt": Smooth(_sqrt, lambda ct, y, x: ct / (y * 2)),
    "rsqrt": Smooth(lambda x: 1 / _sqrt(x), lambda ct, y, x: ct * y / (x * -2)),
    "cbrt": Smooth(
        lambda x: _root(x, 3) if _sign(x) > 0 else -_root(-x, 3),
        lambda ct, y, x: ct / (y * y * 3),
    ),
    "pow": Smooth(_power, _power_slope, lambda ct, y, x, n: ct * y * _log(x)),
    "sin": Smooth(lambda x: x.apply("sin", arb.sin), lambda ct, y, x: ct * x.apply("cos", arb.cos)),
    "cos": Smooth(lambda x: x.apply("cos", arb.cos), lambda ct, y, x: -ct * x.apply("sin", arb.sin)),
    "tan": Smooth(lambda x: x.apply("sin", arb.sin) / x.apply("cos", arb.cos), lambda ct, y, x: ct * (y * y + 1)),
    "sinh": Smooth(lambda x: (_exp(x) - _exp(-x)) / 2, lambda ct, y, x: ct * (_exp(x) + _exp(-x)) / 2),
    "cosh": Smooth(lambda x: (_exp(x) + _exp(-x)) / 2, lambda ct, y, x: ct * (_exp(x) - _exp(-x)) / 2),
    "tanh": Smooth(lambda x: x.apply("tanh", arb.tanh), lambda ct, y, x: ct * (1 - y * y)),
    "asinh": Smooth(lambda x: _log(x + _sqrt(x * x + 1)), lambda ct, y, x: ct / _sqrt(x * x + 1)),
    "acosh": Smooth(lambda x: _log(x + _sqrt(x * x - 1)), lambda ct, y, x: ct / _sqrt(x * x - 1)),
    "atanh": Smooth(lambda x: (_log(1 + x) - _log(1 - x)) / 2, lambda ct, y, x: ct / (1 - x * x)),
    "asin": Smooth(_known("asin"), lambda ct, y, x: ct / _sqrt(1 - x * x)),
    "atan": Smooth(_known("atan"), lambda ct, y, x: ct / (x * x + 1)),
    "atan2": Smooth(
        _known("atan2"),
        lambda ct, r, y, x: ct * x / (x * x + y * y),
        lambda ct, r, y, x: -ct * y / (x * x + y * y),
    ),
    "logistic": Smooth(
        lambda x: x.apply("logistic", lambda b: 1 / (1 + (-b).exp())), lambda ct, y, x: ct * y * (1 - y)
    ),
    "erf": Smooth(_known("erf"), lambda ct, y, x: _erf_slope(ct, x)),
    "erfc": Smooth(lambda x: 1 - _known("erf")(x), lambda ct, y, x: -_erf_slope(ct, x)),
    "erf_inv": Smooth(_known("erf_inv"), lambda ct, y, x: ct * _exp(y * y) / _two_over_sqrt_pi(x)),
    "lgamma": Smooth(_known("lgamma"), lambda ct, y, x: ct * _known("digamma")(x)),
    "one_minus_square": Smooth(lambda x: 1 - x * x, lambda ct, y, x: ct * x * -2),
    "abs": Smooth(lambda x: x if _sign(x) >= 0 else -x, lambda ct, y, x: ct * _sign(x)),
    "rem": Smooth(
        lambda x, y: x - y * _truncated(x / y), lambda ct, *_: ct, lambda ct, r, x, y: -ct * _truncated(x / y)
    ),
}
OWN: dict[str, Callable[..., Any]] = {
    **{name: _each(name, f) for name, f in SMOOTH.items()},
    **{name: _where(lambda s: s < 0) for name in ("lt", "lt_to")},
    **{name: _where(lambda s: s <= 0) for name in ("le", "le_to")},
    "gt": _where(lambda s: s > 0),
    "ge": _where(lambda s: s >= 0),
    "eq": _equal(True),
    "ne": _equal(False),
    "is_finite": lambda eqn, x: np.array([v.is_finite() for v in x.data.ravel()], bool).reshape(x.shape),
    "max": _chosen(lambda s: s >= 0),
    "min": _chosen(lambda s: s <= 0),
    "clamp": _clamp,
    "convert_element_type": _converted,
    "sign": _steps(lambda x: x.sign()),
    "floor": _steps(_floor),
    "ceil": _steps(lambda x: -_floor(-x)),
    "round": _steps(_nearest),
}
UNKNOWN = {"complex", "conj", "eigh", "fft", "imag", "real", "svd"} | {
    *("bessel_i0e", "bessel_i1e", "digamma", "igamma", "igamma_grad_a", "igammac", "polygamma", "zeta"),
    "regularized_incomplete_beta",
}
"""Primitives whose meaning on balls does not carry over to symbols."""
