"""A field of functions: fractions in the arguments, exponentials, logarithms, roots and other functions of them."""

from collections.abc import Callable
from typing import Any

from flint import arb, fmpq

from refgrad.verify.prove.elements import ONE, Generator, Kind
from refgrad.verify.prove.polynomials import (
    CONSTANT,
    LARGEST,
    Polynomial,
    add,
    constant,
    content,
    exponents,
    generator,
    key,
    scale,
)
from refgrad.verify.prove.zero_test import ZeroTest


class Field(ZeroTest):
    """Elements and the functions of them that rules are made of."""

    def __init__(self) -> None:
        super().__init__()
        self._exponentials: dict[int, list[int]] = {}
        self._signs: set[Any] = set()  # elements that are positive

    def exp(self, p: Polynomial) -> Polynomial:
        """Return exp p: the product of exp(c·m) over the terms of p, with exp(log q) = q."""
        out = constant(ONE)
        for monomial, c in self.reduced(p).items():
            out = self.product(out, self._exp_term(monomial, c))
        return out

    def _exp_term(self, monomial: int, c: fmpq) -> Polynomial:
        inner = self._logarithm_of(monomial)
        if inner is not None:
            n = int(c.q)
            return self.power(inner if n == 1 else self.root(inner, n), int(c.p))
        for k in self._exponentials.get(monomial, ()):
            base = self.generators[k].exponential
            assert base is not None
            ratio = c / base[1]
            if ratio.q == 1 and abs(ratio.p) < LARGEST:
                return {generator(k, int(ratio.p)): ONE}
        ball = self.value({monomial: c}).exp()
        k = self._new(Generator("exp", ball, exponential=(monomial, c)))
        self._exponentials.setdefault(monomial, []).append(k)
        return self._element(k)

    def _logarithm_of(self, monomial: int) -> Polynomial | None:
        found = list(exponents(monomial))
        inner = self.generators[found[0][0]].logarithm if len(found) == 1 and found[0][1] == 1 else None
        return inner if inner is not None and self.is_positive(inner) else None

    def log(self, p: Polynomial) -> Polynomial:
        """Return log p: a sum over the factors of p that are known, with log(exp q) = q."""
        c, monomial, q = content(self.reduced(p))
        self._positive(c, monomial, q)
        out: Polynomial = {}
        if abs(c) != 1:
            out = self._log_atom(constant(abs(c)))
        for k, e in exponents(monomial):
            out = add(out, scale(self._log_generator(k), fmpq(e)))
        return add(out, self._log_atom(q)) if len(q) > 1 else out

    def _log_generator(self, k: int) -> Polynomial:
        g = self.generators[k]
        if g.exponential is not None:
            return {g.exponential[0]: g.exponential[1]}
        return self._log_atom(g.relation if g.kind is Kind.NAME else self._element(k))

    def _log_atom(self, p: Polynomial) -> Polynomial:
        return self._atom(("log", key(p)), lambda: Generator("log", abs(self.value(p)).log(), logarithm=p))

    def root(self, p: Polynomial, n: int) -> Polynomial:
        """Return the real n-th root of a positive element, with the n-th powers in it taken out.

        √x² is |x|, and stays a root where the sign of x is not known.
        """
        if not p:
            return {}
        c, monomial, q = content(self.reduced(p))
        self._positive(c, monomial, q)
        outer, inner = _root_of_rational(abs(c), n)
        inner = -inner if c < 0 else inner
        out, rest = constant(outer), CONSTANT
        for k, e in exponents(monomial):
            taken = e // n if n % 2 or self.is_positive(self._element(k)) else e // (2 * n) * 2
            out = self._times(out, {generator(k, taken): ONE})
            rest += generator(k, e - taken * n)
        inside = scale(q, inner, rest)
        if inside == constant(ONE):
            return out
        ball = self.value(inside)
        return self._times(
            out,
            self._atom(("root", n, key(inside)), lambda: Generator("root", ball.root(n), Kind.ROOT, inside, degree=n)),
        )

    def _positive(self, c: fmpq, monomial: int, q: Polynomial) -> None:
        """Note that c·m·q > 0, as the domain of a logarithm or an even root has it, where that says a sign."""
        found = exponents(monomial)
        if not found and len(q) > 1:
            self._signs.add(key(scale(q, ONE if c > 0 else -ONE)))
        elif len(found) == 1 and len(q) == 1 and c > 0 and found[0][1] % 2:
            self._signs.add(key(self._element(found[0][0])))

    def is_positive(self, p: Polynomial) -> bool:
        """Return True for an element that is positive for all arguments in the domain of what has been computed."""
        if key(p) in self._signs:
            return True
        return all(
            c > 0 and all(e % 2 == 0 or self._is_positive_generator(k) for k, e in exponents(monomial))
            for monomial, c in p.items()
        )

    def _is_positive_generator(self, k: int) -> bool:
        g = self.generators[k]
        if g.exponential is not None or (g.kind is Kind.ROOT and g.name == "root") or g.name == "√π":
            return True
        return key(self._element(k)) in self._signs or (g.kind is Kind.NAME and self.is_positive(g.relation))

    def function(self, name: str, value: Callable[..., arb], *ps: Polynomial, odd: bool = False) -> Polynomial:
        """Return a function that is known by its values and derivatives alone."""
        ps = tuple(map(self.reduced, ps))
        if odd and ps[0] and ps[0][max(ps[0])] < 0:
            return scale(self.function(name, value, scale(ps[0], -ONE)), -ONE)
        return self._atom((name, *map(key, ps)), lambda: Generator(name, value(*map(self.value, ps))))

    def cosine(self, p: Polynomial) -> Polynomial:
        """Return cos p, a root of 1 − sin² p."""
        if p and p[max(p)] < 0:
            p = scale(p, -ONE)
        sine = self.function("sin", arb.sin, p, odd=True)
        relation = add(constant(ONE), scale(self._times(sine, sine), -ONE))
        return self._atom(("cos", key(p)), lambda: Generator("cos", self.value(p).cos(), Kind.ROOT, relation, degree=2))


def _root_of_rational(c: fmpq, n: int) -> tuple[fmpq, fmpq]:
    """Return (a, b) with c = aⁿ b: the powers of small primes taken out."""
    outer = ONE
    for prime in (2, 3, 5, 7, 11, 13):
        step = fmpq(prime) ** n
        while c.p % step.p == 0:
            c, outer = c / step, outer * prime
        while c.q % step.p == 0:
            c, outer = c * step, outer / prime
        if c.q % prime == 0:  # a denominator under the root goes outside
            c, outer = c * step, outer / prime
    return outer, c
