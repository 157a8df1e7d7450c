"""Matrices of scalars, as object arrays: their products, by flint where it has them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from flint import acb, acb_mat, arb, arb_mat

from refgrad.verify.exact.scalars.functions import finite
from refgrad.verify.exact.scalars.germ import EXACT, ZERO, Germ

BLOCKED = 61  # from this size on flint multiplies matrices by blocks, at 256 bits


def full(shape: Sequence[int], value: Any = ZERO) -> np.ndarray:
    """Return an object array of one value."""
    out = np.empty(tuple(shape), object)
    out.fill(value)
    return out


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the products of stacks of matrices of scalars."""
    out = full((*a.shape[:-1], b.shape[-1]))
    for at in np.ndindex(a.shape[:-2]):
        out[at] = _matrix_product(a[at], b[at])
    return out


def _matrix_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return one product of matrices: flint's where all entries are finite balls, term by term where they are germs."""
    if not a.size or not b.size:
        return full((a.shape[0], b.shape[1]))
    rows, columns = ([i for i, row in enumerate(x) if not all(map(finite, row))] for x in (a, b.T))
    if rows or columns:
        sound = [np.array([x if x.is_finite() else ZERO for x in m.ravel()], object).reshape(m.shape) for m in (a, b)]
        out = _matrix_product(*sound)
        for i in rows:
            out[i] = np.sum(a[i][:, None] * b, axis=0)
        for j in columns:
            out[:, j] = np.sum(a * b[:, j], axis=1)
        return out
    kinds = {*map(type, a.ravel()), *map(type, b.ravel())}
    if not kinds <= {arb, acb, Germ}:
        return a @ b  # scalars of another kind
    if Germ not in kinds:
        return _flint_product(a, b, acb_mat if acb in kinds else arb_mat)
    (a_terms, a_low, a_order), (b_terms, b_low, b_order) = map(_coefficients, (a, b))
    orders = np.minimum(_least(a_low, b_order), _least(a_order, b_low))
    parts = (*a_terms.values(), *b_terms.values())
    kind = acb_mat if any(isinstance(c, acb) for m in parts for c in m.flat) else arb_mat
    found: dict = {}
    for (q, m), A in a_terms.items():
        for (r, n), B in b_terms.items():
            key = (q + r, m + n)
            part = _flint_product(A, B, kind)
            found[key] = found[key] + part if key in found else part
    out = full(orders.shape)
    for at in np.ndindex(orders.shape):
        out[at] = Germ.of({key: part[at] for key, part in found.items()}, orders[at])
    return out


def _coefficients(m: np.ndarray) -> tuple[dict, np.ndarray, np.ndarray]:
    """Return the matrix of each term, the lowest exponents and the orders of a matrix of germs."""
    terms: dict = {}
    low, order = full(m.shape, EXACT), full(m.shape, EXACT)
    for at, x in np.ndenumerate(m):
        found = x.terms if isinstance(x, Germ) else {} if x.is_zero() else {(0, 0): x}
        if isinstance(x, Germ):
            order[at] = x.order
        low[at] = min((k[0] for k in found), default=order[at])
        for key, c in found.items():
            if key not in terms:
                terms[key] = full(m.shape)
            terms[key][at] = c
    return terms, low, order


def _least(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.min(a[:, :, None] + b[None], axis=1)


def _flint_product(a: np.ndarray, b: np.ndarray, kind: Any) -> np.ndarray:
    (m, k), n = a.shape, b.shape[1]
    wide_m, wide_k, wide_n = (max(d, BLOCKED) for d in (m, k, n))
    if wide_m * wide_k * wide_n < 2 * m * k * n:  # zeros that let flint multiply by blocks, several times as fast
        a, b = _bordered(a, wide_m, wide_k), _bordered(b, wide_k, wide_n)
    product = kind(*a.shape, a.ravel().tolist()) * kind(*b.shape, b.ravel().tolist())
    out = np.empty(product.nrows() * product.ncols(), object)
    out[:] = product.entries()
    return out.reshape(product.nrows(), -1)[:m, :n]


def _bordered(x: np.ndarray, rows: int, columns: int) -> np.ndarray:
    if x.shape == (rows, columns):
        return x
    out = full((rows, columns))
    out[: x.shape[0], : x.shape[1]] = x
    return out
