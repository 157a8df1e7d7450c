"""A field of functions: fractions in the arguments, exponentials, logarithms, roots and other functions of them.

An element is a Laurent polynomial in generators. Each generator is free (an argument, an exponential, another function)
or has a relation: it is the name of a polynomial, or a root of one. An element that reduces to 0 modulo the relations
is 0 for all arguments. The converse holds only as far as the generators that count as free are independent.
"""

import dataclasses
import enum
from collections.abc import Callable
from typing import Any

from flint import arb, fmpq

from refgrad.verify.prove.polynomials import (
    CONSTANT,
    LARGEST,
    WIDTH,
    Polynomial,
    add,
    constant,
    content,
    exponent,
    exponents,
    generator,
    generators,
    grouped,
    key,
    multiply,
    scale,
)

NAMED = 8  # terms of a product, beyond which its factors are named instead of multiplied out
PRODUCTS = 30_000  # of terms, that one reduction to 0 may spend
ONE, TWO = fmpq(1), fmpq(2)


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


class Field:
    """The generators of one run. Nothing outlives it, so that no name means one thing here and another there."""

    def __init__(self) -> None:
        self.generators: list[Generator] = []
        self.spent = 0
        self._known: dict[Any, int] = {}
        self._exponentials: dict[int, list[int]] = {}
        self._zeros: set[Any] = set()
        self._signs: set[Any] = set()  # elements that are positive

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

    def is_zero(self, p: Polynomial) -> bool:
        """Return True for an element that is 0 for all arguments. Raises TooLarge where that takes too much.

        Names stand for themselves at first, and are multiplied out one by one while p is not 0: the latest of those
        on which p depends at the arguments of the run, with all others held.
        """
        self.spent = 0
        while not self._vanishes(p, lazy=True):
            names = generators(p) - _inverted(p)
            needed = (k for k in sorted(names, reverse=True) if self._depends(p, k))
            k = next(needed, None)
            if k is None:
                return self._vanishes(p, lazy=False)
            p = self._expanded(p, k)
        return True

    def _depends(self, p: Polynomial, k: int) -> bool:
        """Return True for a name with a partial derivative other than 0."""
        if self.generators[k].kind is not Kind.NAME:
            return False
        slope = {m - generator(k): c * e for m, c in p.items() if (e := exponent(m, k))}
        return not self.value(slope).contains(0)

    def _expanded(self, p: Polynomial, k: int) -> Polynomial:
        """Return p with a name multiplied out."""
        by_exponent = _by_exponent(p, k)
        by_exponent.setdefault(0, {})
        return self._substituted(by_exponent, self.generators[k].relation)

    def _vanishes(self, p: Polynomial, lazy: bool) -> bool:
        """Return True where p reduces to 0 modulo the relations: all of them, or those of roots and denominators."""
        waiting: list[tuple[Polynomial, frozenset[int]]] = [(p, frozenset())]
        seen: set[Any] = set()
        while waiting:
            p, settled = waiting.pop()
            if not p:
                continue
            _, _, p = content(p)
            identity = key(p), settled
            if identity in seen or identity in self._zeros:
                continue
            seen.add(identity)
            self._spend(len(p))
            related = self._related(p, lazy) - settled
            own = generators(p) & related
            if not own:
                return False
            involved = related | {j for k in related for j in generators(self.generators[k].relation)}
            for group in grouped(p, lambda m, kept=involved: _outside(m, kept)).values():
                here = own & generators(group)
                if not here:
                    return False
                waiting += self._eliminated(group, max(here), settled, lazy)
        self._zeros |= seen
        return True

    def _related(self, p: Polynomial, lazy: bool) -> set[int]:
        """Return the generators with a relation in a polynomial, and in their relations."""
        found: set[int] = set()
        waiting = [p]
        while waiting:
            p = waiting.pop()
            inverted = _inverted(p) if lazy else set()
            for k in generators(p) - found:
                kind = self.generators[k].kind
                if kind is Kind.ROOT or (kind is Kind.NAME and (not lazy or k in inverted)):
                    found.add(k)
                    waiting.append(self.generators[k].relation)
        return found

    def _eliminated(
        self, p: Polynomial, k: int, settled: frozenset[int], lazy: bool
    ) -> list[tuple[Polynomial, frozenset[int]]]:
        """Return polynomials that are all 0 only if p is, with one relation used up."""
        g = self.generators[k]
        by_exponent = _by_exponent(p, k)
        if g.kind is Kind.NAME and min(by_exponent) < 0:
            solved = self._solved(p, k, settled, lazy)
            if solved is not None:
                return [(solved, settled | {k})]
        classes: dict[int, dict[int, Polynomial]] = {}
        for e, q in by_exponent.items():
            classes.setdefault(e % g.degree, {})[e // g.degree] = q
        return [(self._substituted(found, g.relation), settled) for found in classes.values()]

    def _solved(self, p: Polynomial, k: int, settled: frozenset[int], lazy: bool) -> Polynomial | None:
        """Return p with a generator of the relation of k expressed by k, which is free from then on.

        In softmax, one exponential is the sum of all less the others. None where no generator can be expressed.
        """
        relation = self.generators[k].relation
        others = self._related(p, lazy) - settled - {k}
        bound = {j for i in others for j in generators(self.generators[i].relation)}
        count: dict[int, list[tuple[int, int]]] = {}
        for monomial in relation:
            for j, e in exponents(monomial):
                count.setdefault(j, []).append((monomial, e))
        for j in sorted(count, reverse=True):
            if len(count[j]) > 1 or count[j][0][1] != 1 or j in bound or self.generators[j].kind is not Kind.FREE:
                continue
            monomial = count[j][0][0]
            rest = {m: c for m, c in relation.items() if m != monomial}
            other = add({generator(k): ONE}, scale(rest, -ONE))
            value = scale(other, 1 / relation[monomial], generator(j) - monomial)
            return self._substituted(_by_exponent(p, j), value)
        return None

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

    def _substituted(self, by_exponent: dict[int, Polynomial], value: Polynomial) -> Polynomial:
        """Return Σ p_e value^(e − least)."""
        out: Polynomial = {}
        reached = min(by_exponent)
        factor = constant(ONE)
        for e in sorted(by_exponent):
            factor = self._times(factor, self._power(value, e - reached))
            reached = e
            out = add(out, self._times(by_exponent[e], factor))
        return out

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


def _by_exponent(p: Polynomial, k: int) -> dict[int, Polynomial]:
    """Return p as a polynomial in one generator."""
    return {m >> (WIDTH * k): q for m, q in grouped(p, lambda m: generator(k, exponent(m, k))).items()}


def _inverted(p: Polynomial) -> set[int]:
    """Return the generators that a polynomial divides by."""
    return {k for monomial in p for k, e in exponents(monomial) if e < 0}


def _outside(monomial: int, kept: set[int]) -> int:
    """Return the part of a monomial in other generators than those kept."""
    return monomial - sum(generator(k, e) for k, e in exponents(monomial) if k in kept)


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
