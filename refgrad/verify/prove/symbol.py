"""Scalars that are known twice: as a ball at the arguments of the run, and as an element of a field of functions.

A `Symbol` stands in the arrays of `refgrad.verify.exact` where a ball would. Its ball decides comparisons at once; its
element is computed when it is asked for, once for equal expressions.
"""

from collections.abc import Callable
from typing import Any

from flint import acb, arb, fmpq

from refgrad.verify.exact.arrays import NotDecided
from refgrad.verify.exact.scalars.germ import TIE
from refgrad.verify.prove.elements import NAMED, TooLarge
from refgrad.verify.prove.field import Field
from refgrad.verify.prove.polynomials import Polynomial, add, constant, scale

GIVE_UP = 3  # equalities that are too large to decide, after which the run is


class ConcolicRun:
    """One concolic run: its field, the expressions met so far, and the comparisons that decided its branch."""

    def __init__(self) -> None:
        self.field = Field()
        self.decisions: list[bool] = []
        self._known: dict[Any, Symbol] = {}
        self._elements: dict[int, Polynomial] = {}
        self.given_up = 0
        """The equalities of symbols that were too large to decide."""
        self.assumed = False
        """True where a comparison took such an equality for granted: nothing is proven then."""
        self._by_value: dict[float, list[Symbol]] = {}

    def constant(self, value: Any) -> "Symbol":
        """Return a rational number."""
        return Symbol(self, "constant", (), arb(value), fmpq(value))

    def variable(self, name: str, value: fmpq) -> "Symbol":
        """Return an argument."""
        ball = arb(value)
        found = Symbol(self, "variable", (), ball)
        self._elements[id(found)] = self.field.free(name, ball)
        self._known["variable", id(found)] = found  # kept, so that its id stays its own
        return found

    def apply(self, name: str, ball: Callable[[], arb], *parents: "Symbol", by: Any = None) -> "Symbol":
        """Return the function `name` of `_RULES` of symbols: the same object for the same expression."""
        key = (name, by, *((p.exact,) if p.exact is not None else id(p) for p in parents))
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = Symbol(self, name, parents, ball(), by=by)
            self._by_value.setdefault(abs(float(found.ball.mid())), []).append(found)
        return found

    def element(self, symbol: "Symbol") -> Polynomial:
        """Return the element of the field that a symbol is."""
        waiting = [symbol]
        while waiting:
            x = waiting[-1]
            if id(x) in self._elements:
                waiting.pop()
                continue
            if x.exact is not None:
                self._elements[id(x)] = constant(x.exact)
                self._known["constant", id(x)] = x
                continue
            missing = [p for p in x.parents if id(p) not in self._elements]
            if missing:
                waiting += missing
                continue
            older, sign = self._older(x)
            if older is not None and id(older) not in self._elements:
                waiting.append(older)
                continue
            parents = (self._elements[id(p)] for p in x.parents)
            self.field.spent = 0
            made = _RULES[x.name](self.field, *parents, **({} if x.by is None else {"by": x.by}))
            if older is not None:
                other = scale(self._elements[id(older)], fmpq(sign))
                if made != other and self._vanishes(add(made, scale(other, fmpq(-1)))):
                    made = other
            made = made if len(made) <= NAMED else self.field.named(made)
            self.field.check(made)
            self._elements[id(x)] = made
        return self._elements[id(symbol)]

    def _vanishes(self, p: Polynomial) -> bool:
        """Return True where p is known to be 0. Raises TooLarge where too many were too large to say."""
        try:
            return self.field.is_zero(p)
        except TooLarge:
            self.given_up += 1
            if self.given_up > GIVE_UP:
                raise
            return False

    def _older(self, x: "Symbol") -> "tuple[Symbol | None, int]":
        """Return the oldest symbol of the same value or its negative: if they are equal, x can take its element.

        Two sides that compute the same in two ways then go on from one element, and each identity is shown once.
        """
        for other in self._by_value.get(abs(float(x.ball.mid())), ()):
            if other is x:
                break
            for sign in (1, -1):
                if (x.ball - other.ball * sign).contains(0):
                    return other, sign
        return None, 1

    def same(self, a: "Symbol", b: "Symbol") -> bool:
        """Return True where two symbols are equal for all arguments on the branch."""
        if a is b:
            return True
        difference = add(self.element(a), scale(self.element(b), fmpq(-1)))
        return self.field.is_zero(difference)


class Symbol:
    """A scalar of a run: its operation, its operands, and its ball; `exact` where it is a rational number."""

    __slots__ = ("ball", "by", "exact", "name", "parents", "run")

    def __init__(
        self,
        run: ConcolicRun,
        name: str,
        parents: "tuple[Symbol, ...]",
        ball: arb,
        exact: fmpq | None = None,
        by: Any = None,
    ) -> None:
        self.run, self.name, self.parents, self.ball, self.exact, self.by = run, name, parents, ball, exact, by

    def __repr__(self) -> str:
        return f"Symbol({self.name}, {float(self.ball.mid()):.6g})"

    def _other(self, x: Any) -> Any:
        """Return an operand as a symbol, an infinity or NaN as the ball that it is, None for anything else."""
        if isinstance(x, Symbol):
            return x
        if isinstance(x, int):
            return self.run.constant(x)
        if isinstance(x, acb):
            raise NotImplementedError("complex numbers have no symbolic form here")
        if not isinstance(x, arb):
            return None
        if not x.is_finite():
            return x
        if not x.is_exact():
            raise NotImplementedError("a constant is not exact")
        return self.run.constant(x.fmpq())

    def __add__(self, other: Any) -> Any:
        b = self._other(other)
        if b is None:
            return NotImplemented
        if isinstance(b, arb):
            return self.ball + b
        if self.exact is not None and b.exact is not None:
            return self.run.constant(self.exact + b.exact)
        if self.exact == 0 or b.exact == 0:
            return b if self.exact == 0 else self
        return self.run.apply("add", lambda: self.ball + b.ball, self, b)

    def __neg__(self) -> Any:
        if self.exact is not None:
            return self.run.constant(-self.exact)
        return self.run.apply("neg", lambda: -self.ball, self)

    def __sub__(self, other: Any) -> Any:
        b = self._other(other)
        if b is self:
            return self.run.constant(0)
        return NotImplemented if b is None else self + -b

    def __rsub__(self, other: Any) -> Any:
        return -self + other

    def __mul__(self, other: Any) -> Any:
        b = self._other(other)
        if b is None:
            return NotImplemented
        if isinstance(b, arb):
            return self.ball * b
        if self.exact is not None and b.exact is not None:
            return self.run.constant(self.exact * b.exact)
        for x, y in ((self, b), (b, self)):
            if x.exact == 0:
                return x
            if x.exact == 1:
                return y
        return self.run.apply("mul", lambda: self.ball * b.ball, self, b)

    def __truediv__(self, other: Any) -> Any:
        b = self._other(other)
        if b is None:
            return NotImplemented
        if isinstance(b, arb):
            return self.ball / b
        if b.exact is not None:
            if b.exact == 0:
                raise NotDecided("a division by 0")
            return self * self.run.constant(1 / b.exact)
        if b.ball.contains(0):
            raise NotDecided(TIE)
        if self.exact == 0:
            return self
        return self.run.apply("div", lambda: self.ball / b.ball, self, b)

    def __rtruediv__(self, other: Any) -> Any:
        a = self._other(other)
        return NotImplemented if a is None else a / self.ball if isinstance(a, arb) else a / self

    __radd__ = __add__
    __rmul__ = __mul__

    def __pow__(self, n: int) -> Any:
        if self.exact is not None and (n >= 0 or self.exact != 0):
            return self.run.constant(self.exact**n)
        return self.apply("power", lambda ball: ball**n, by=n)

    def apply(self, name: str, ball: Callable[..., arb], *others: Any, by: Any = None) -> "Symbol":
        """Return a function of this and further symbols. Raises NotDecided outside its domain."""
        found = self.run.apply(name, lambda: ball(self.ball, *(x.ball for x in others)), self, *others, by=by)
        if not found.ball.is_finite():
            raise NotDecided(f"{name} at {float(self.ball.mid()):.3g} is not finite")
        return found

    def sqrt(self) -> "Symbol":
        """Return the square root."""
        return self.apply("root", arb.sqrt, by=2)

    def sign(self) -> int:
        """Return −1, 0 or 1, and record the comparison. Raises NotDecided at a tie that other arguments break."""
        if self.ball.contains(0):
            if self.is_zero():
                return 0
            raise NotDecided(TIE)
        if self.exact is None:
            self.run.decisions.append(bool(self.ball > 0))
        return 1 if self.ball > 0 else -1

    def is_zero(self) -> bool:
        """Return True where the scalar is 0 for all arguments."""
        if self.exact is not None:
            return self.exact == 0
        if not self.ball.contains(0):
            return False
        try:
            return self.run.field.is_zero(self.run.element(self))
        except TooLarge:
            self.run.assumed = True
            return True

    def is_finite(self) -> bool:
        """Return True: infinities and NaN are balls."""
        return True

    def is_nan(self) -> bool:
        """Return False: NaN is a ball."""
        return False

    def contains(self, x: int) -> bool:
        """Return True where the scalar cannot be told from a number at the arguments of the run."""
        return self.ball.contains(x)

    def __gt__(self, other: Any) -> bool:
        return (self - other).sign() > 0

    def __lt__(self, other: Any) -> bool:
        return (self - other).sign() < 0

    @property
    def real(self) -> "Symbol":
        """The scalar itself."""
        return self


def _logistic(field: Field, p: Polynomial) -> Polynomial:
    e = field.exp(p)
    return field.quotient(e, add(e, constant(fmpq(1))))


def _tanh(field: Field, p: Polynomial) -> Polynomial:
    e = field.exp(scale(p, fmpq(2)))
    one = constant(fmpq(1))
    return add(one, scale(field.inverse(add(e, one)), fmpq(-2)))


FUNCTIONS: dict[str, tuple[Callable[..., arb], bool]] = {
    "erf": (arb.erf, True),
    "erf_inv": (arb.erfinv, True),
    "asin": (arb.asin, True),
    "atan": (arb.atan, True),
    "lgamma": (arb.lgamma, False),
    "digamma": (arb.digamma, False),
    "atan2": (arb.atan2, False),
    "√π": (lambda: arb.pi().sqrt(), False),
}
"""Functions that are generators without a relation: their values on balls, and True where they are odd."""


_RULES: dict[str, Callable[..., Polynomial]] = {
    "add": lambda field, p, q: add(p, q),
    "neg": lambda field, p: scale(p, fmpq(-1)),
    "mul": Field.product,
    "div": Field.quotient,
    "power": lambda field, p, by: field.power(p, by),
    "exp": Field.exp,
    "log": Field.log,
    "root": lambda field, p, by: field.root(p, by),
    "sin": lambda field, p: field.function("sin", arb.sin, p, odd=True),
    "cos": Field.cosine,
    "tanh": _tanh,
    "logistic": _logistic,
    **{
        name: lambda field, *ps, name=name, value=value, odd=odd: field.function(name, value, *ps, odd=odd)
        for name, (value, odd) in FUNCTIONS.items()
    },
}
