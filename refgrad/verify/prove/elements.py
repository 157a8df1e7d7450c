"""Laurent polynomials in generators, as a field has them: sums, products, powers and inverses.

Each generator is free (an argument, an exponential, another function) or has a relation: it is the name of a
polynomial, or a root of one.
"""

import dataclasses
import enum
from collections.abc import Callable
from typing import Any

from flint import arb, fmpq

from refgrad.verify.prove.polynomials import (
    LARGEST,
    Polynomial,
    add,
    constant,
    content,
    exponent,
    exponents,
    generator,
    generators,
    key,
    multiply,
)

NAMED = 8  # terms of a product, beyond which its factors are named instead of multiplied out
PRODUCTS = 30_000  # of terms, that one reduction to 0 may spend
ONE = fmpq(1)


class TooLarge(Exception):
    """A reduction has spent all products of terms that it may."""


class Kind(enum.Enum):
    """The relation of a generator."""

    FREE = "free"
    NAME = "the name of a polynomial"
    ROOT = "a root of a polynomial"


@dataclasses.dataclass(frozen=True)
class Generator:
    """A generator, its value at the arguments of the run, and its relation: `itself^degree = relation`."""

    name: str
    ball: arb
    kind: Kind = Kind.FREE
    relation: Polynomial = dataclasses.field(default_factory=dict)
    degree: int = 1
    exponential: tuple[int, fmpq] | None = None
    """(m, c) where it is exp(c·m) of a monomial m."""
    logarithm: Polynomial | None = None
    """The polynomial q where it is log |q|."""


class Elements:
    """The generators of one run. Nothing outlives it, so that no name means one thing here and another there."""

    def __init__(self) -> None:
        self.generators: list[Generator] = []
        self.spent = 0
        self._known: dict[Any, int] = {}

    def free(self, name: str, ball: arb) -> Polynomial:
        """Return a new free generator."""
        return self._element(self._new(Generator(name, ball)))

    def value(self, p: Polynomial) -> arb:
        """Return the value of an element at the arguments of the run."""
        total = arb(0)
        for monomial, c in p.items():
            term = arb(c)
            for k, e in exponents(monomial):
                term *= self.generators[k].ball ** e
            total += term
        return total

    def product(self, p: Polynomial, q: Polynomial) -> Polynomial:
        """Return p q, with factors of many terms named."""
        if len(p) * len(q) > NAMED:
            p, q = self.named(p), self.named(q)
        return self._times(p, q)

    def named(self, p: Polynomial) -> Polynomial:
        """Return p as a multiple of one generator."""
        if len(p) < 2:
            return p
        c, monomial, q = content(p)
        return {monomial + generator(self._name(q)): c}

    def inverse(self, p: Polynomial) -> Polynomial:
        """Return 1/p. Raises ZeroDivisionError where p is 0."""
        if not p:
            raise ZeroDivisionError
        c, monomial, q = content(p)
        if len(q) == 1:
            return {-monomial: 1 / c}
        return {-monomial - generator(self._name(q)): 1 / c}

    def quotient(self, p: Polynomial, q: Polynomial) -> Polynomial:
        """Return p/q, without a denominator where p is a multiple of q."""
        if len(p) == len(q) > 1:
            (a, m, left), (b, n, right) = content(p), content(q)
            if left == right:
                return {m - n: a / b}
        return self.product(p, self.inverse(q))

    def power(self, p: Polynomial, n: int) -> Polynomial:
        """Return p^n for any integer n."""
        if n < 0:
            return self.power(self.inverse(p), -n)
        if n > LARGEST:
            raise TooLarge
        if len(p) == 1:
            ((monomial, c),) = p.items()
            return {monomial * n: c**n}
        return self._power(self.named(p) if len(p) ** n > NAMED else p, n)

    def reduced(self, p: Polynomial) -> Polynomial:
        """Return p with every root of degree n to a power from 0 to n − 1, as far as its relation is one term."""
        for k in sorted(generators(p), reverse=True):
            g = self.generators[k]
            if g.kind is Kind.ROOT:
                out: Polynomial = {}
                for monomial, c in p.items():
                    n = exponent(monomial, k) // g.degree
                    term = {monomial - generator(k, n * g.degree): c}
                    if n > 0 or len(g.relation) == 1:
                        out = add(out, self._times(term, self.power(g.relation, n)))
                    else:
                        out = add(out, {monomial: c})
                p = out
        return p

    def _name(self, q: Polynomial) -> int:
        def make() -> Generator:
            return Generator("name", self.value(q), Kind.NAME, q)

        (monomial,) = self._atom(("name", key(q)), make)
        ((k, _),) = exponents(monomial)
        return k

    def _atom(self, identity: Any, make: Callable[[], Generator]) -> Polynomial:
        if identity not in self._known:
            self._known[identity] = self._new(make())
        return self._element(self._known[identity])

    def _new(self, g: Generator) -> int:
        self.generators.append(g)
        return len(self.generators) - 1

    def _times(self, p: Polynomial, q: Polynomial) -> Polynomial:
        """Return p q, multiplied out."""
        self._spend(len(p) * len(q))
        return multiply(p, q)

    def check(self, p: Polynomial) -> None:
        """Raise TooLarge for an element with an exponent that is too large."""
        if any(abs(e) > LARGEST for monomial in p for _, e in exponents(monomial)):
            raise TooLarge

    def _spend(self, products: int) -> None:
        self.spent += products
        if self.spent > PRODUCTS:
            raise TooLarge

    def _power(self, p: Polynomial, n: int) -> Polynomial:
        out = constant(ONE)
        for bit in f"{n:b}" if n else "":
            out = self._times(out, out)
            if bit == "1":
                out = self._times(out, p)
        return out

    @staticmethod
    def _element(k: int) -> Polynomial:
        return {generator(k): ONE}
