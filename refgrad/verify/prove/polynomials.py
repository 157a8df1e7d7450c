"""Laurent polynomials in any number of generators, with rational coefficients.

A polynomial maps monomials to coefficients. A monomial is one integer, Σ exponent_k · 2^(32 k) over the generators k:
exponents may be negative, a product of monomials is a sum, and a new generator changes no polynomial that exists.
"""

import functools
from collections.abc import Callable

from flint import fmpq

WIDTH = 32  # bits of an exponent
HALF = 1 << (WIDTH - 1)
MASK = (1 << WIDTH) - 1
LARGEST = 1 << 24  # exponent of an element: products of two stay far below the width
CONSTANT = 0  # the monomial 1

Polynomial = dict[int, fmpq]
Key = frozenset


def generator(k: int, exponent: int = 1) -> int:
    """Return the monomial of one generator."""
    return exponent << (WIDTH * k)


@functools.lru_cache(1 << 17)
def exponents(monomial: int) -> tuple[tuple[int, int], ...]:
    """Return (generator, exponent) for the generators of a monomial, in ascending order."""
    found = []
    k = 0
    while monomial:
        skipped = ((monomial & -monomial).bit_length() - 1) // WIDTH
        monomial >>= WIDTH * skipped
        k += skipped
        e = ((monomial + HALF) & MASK) - HALF
        found.append((k, e))
        monomial = (monomial - e) >> WIDTH
        k += 1
    return tuple(found)


def exponent(monomial: int, k: int) -> int:
    """Return the exponent of one generator."""
    below = WIDTH * k
    carry = (monomial >> (below - 1)) & 1 if k else 0  # a negative exponent below borrows one
    return (((monomial >> below) + carry + HALF) & MASK) - HALF


def generators(p: Polynomial) -> set[int]:
    """Return the generators of a polynomial."""
    return {k for monomial in p for k, _ in exponents(monomial)}


def constant(c: fmpq) -> Polynomial:
    """Return a polynomial without generators."""
    return {CONSTANT: c} if c else {}


def add(p: Polynomial, q: Polynomial) -> Polynomial:
    """Return p + q."""
    if len(p) < len(q):
        p, q = q, p
    out = dict(p)
    for monomial, c in q.items():
        _add_to(out, monomial, c)
    return out


def _add_to(out: Polynomial, monomial: int, c: fmpq) -> None:
    if monomial in out:
        c = out[monomial] + c
        if not c:
            del out[monomial]
            return
    out[monomial] = c


def scale(p: Polynomial, c: fmpq, monomial: int = CONSTANT) -> Polynomial:
    """Return p times one term."""
    return {m + monomial: a * c for m, a in p.items()} if c else {}


def multiply(p: Polynomial, q: Polynomial) -> Polynomial:
    """Return p q."""
    if len(p) > len(q):
        p, q = q, p
    if len(p) == 1:
        ((monomial, c),) = p.items()
        return scale(q, c, monomial)
    out: Polynomial = {}
    for m, c in p.items():
        for n, d in q.items():
            _add_to(out, m + n, c * d)
    return out


def grouped(p: Polynomial, part: Callable[[int], int]) -> dict[int, Polynomial]:
    """Return p as Σ part · rest: for each part of monomials the polynomial of what is left of them."""
    out: dict[int, Polynomial] = {}
    for monomial, c in p.items():
        own = part(monomial)
        out.setdefault(own, {})[monomial - own] = c
    return out


def key(p: Polynomial) -> Key:
    """Return a hashable form."""
    return frozenset(p.items())


def content(p: Polynomial) -> tuple[fmpq, int, Polynomial]:
    """Return (c, m, q) with p = c·m·q: q without a monomial that all terms share, its last one's coefficient 1."""
    terms = iter(p)
    common = dict(exponents(next(terms)))
    for monomial in terms:
        if not common:
            break
        found = dict(exponents(monomial))
        common = {k: min(e, found[k]) for k, e in common.items() if k in found}
    shared = sum(generator(k, e) for k, e in common.items())
    lead = p[max(p)]
    return lead, shared, scale(p, 1 / lead, -shared)
