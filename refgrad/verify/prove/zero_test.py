"""Elements that are 0 for all arguments: found by their relations, names multiplied out as late as possible.

An element that reduces to 0 modulo the relations is 0 for all arguments. The converse holds only as far as the
generators that count as free are independent.
"""

from typing import Any

from refgrad.verify.prove.elements import ONE, Elements, Kind
from refgrad.verify.prove.polynomials import (
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
    scale,
)


class ZeroTest(Elements):
    """Elements with a test for 0."""

    def __init__(self) -> None:
        super().__init__()
        self._zeros: set[Any] = set()

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


def _by_exponent(p: Polynomial, k: int) -> dict[int, Polynomial]:
    """Return p as a polynomial in one generator."""
    return {m >> (WIDTH * k): q for m, q in grouped(p, lambda m: generator(k, exponent(m, k))).items()}


def _inverted(p: Polynomial) -> set[int]:
    """Return the generators that a polynomial divides by."""
    return {k for monomial in p for k, e in exponents(monomial) if e < 0}


def _outside(monomial: int, kept: set[int]) -> int:
    """Return the part of a monomial in other generators than those kept."""
    return monomial - sum(generator(k, e) for k, e in exponents(monomial) if k in kept)
