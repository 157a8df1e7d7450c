"""Factorizations, by their algorithms on rows and columns; `eigh` to first order around its eigenvalues."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from flint import acb, acb_mat
from jax.extend.core import JaxprEqn

from refgrad.verify.exact.arrays import Array, NotDecided, absent, elementwise, full, matmul, move, total
from refgrad.verify.exact.primitives.reductions import _extreme
from refgrad.verify.exact.scalars.germ import ABSENT, EXACT, ONE, PRECISION, TIE, ZERO, Germ, Undecided, compare, limit
from refgrad.verify.exact.scalars.table import SCALARS

FIRST_ORDER = "eigenvalues and eigenvectors are followed to first order"


def _do(name: str, x: Array) -> Array:
    return elementwise(SCALARS[name], x)


def each_matrix(f: Callable[..., list]) -> Callable[..., Any]:
    """The rule of a function of single matrices, over the leading axes."""

    def rule(eqn: JaxprEqn, *xs: Any) -> Any:
        batch = xs[0].shape[:-2]
        flat = [move(lambda d, x=x: d.reshape(-1, *x.shape[-2:]), x) for x in xs]
        made = [f(eqn.params, *(x[i] for x in flat)) for i in range(int(np.prod(batch)))]
        out = [
            move(lambda *ds: np.stack(ds).reshape((*batch, *ds[0].shape)), *parts) for parts in zip(*made, strict=True)
        ]
        return out if eqn.primitive.multiple_results else out[0]

    return rule


def _rows(x: Array) -> list[Array]:
    return [x[i : i + 1] for i in range(x.shape[0])]


def _stack(rows: Sequence[Array]) -> Array:
    return move(lambda *ds: np.concatenate(ds), *rows)


def _identity(m: int, n: int) -> Array:
    out = full((m, n))
    np.fill_diagonal(out, ONE)
    return Array(out)


def solve_triangular(a: Array, b: Array, lower: bool, unit: bool) -> Array:
    """Return x of a x = b, by substitution."""
    n = a.shape[0]
    right, x = _rows(b), {}
    for i in range(n) if lower else reversed(range(n)):
        row = right[i]
        for j in x:
            row = row - a[i, j] * x[j]
        x[i] = row if unit else row / a[i, i]
    return _stack([x[i] for i in range(n)])


def triangular_solve(p: dict, a: Array, b: Array) -> list[Array]:
    """Substitution from either side: x·op(a) = b is op(a)ᵀ·xᵀ = bᵀ."""
    left, flip = p["left_side"], p["transpose_a"] is p["left_side"]
    a = _do("conj", a) if p["conjugate_a"] else a
    x = solve_triangular(a.T if flip else a, b if left else b.T, p["lower"] is not flip, p["unit_diagonal"])
    return [x if left else x.T]


def cholesky(p: dict, a: Array) -> list[Array]:
    """Column by column, of the lower triangle."""
    del p
    n = a.shape[0]
    columns: list[Array] = []
    for j in range(n):
        c = a[j:, j]
        for k, done in enumerate(columns):
            c = c - done[j - k :] * _do("conj", done[j - k])
        root = _do("sqrt", c[0])
        columns.append(move(np.append, root, c[1:] / root))
    zero = Array(full((n,)))
    return [move(lambda z, *cs: np.stack([np.concatenate([z[: n - len(c)], c]) for c in cs], 1), zero, *columns)]


def lu(p: dict, a: Array) -> list:
    """Gaussian elimination with the largest pivot of each column."""
    del p
    m, n = a.shape
    rows = _rows(a)
    pivots, order = [], list(range(m))
    for k in range(min(m, n)):
        size = _do("abs", _stack([row[:, k] for row in rows[k:]]))
        best, tied = _extreme(size.data, largest=True)
        if tied and size.pull is not None:
            raise NotDecided(TIE)
        i = k + best
        rows[k], rows[i], order[k], order[i] = rows[i], rows[k], order[i], order[k]
        pivots.append(i)
        for j in range(k + 1, m):
            factor = rows[j][:, k : k + 1] / rows[k][0, k]
            after = rows[j][:, k + 1 :] - factor * rows[k][:, k + 1 :]
            rows[j] = move(lambda *ds: np.concatenate(ds, 1), rows[j][:, :k], factor, after)
    return [_stack(rows), np.array(pivots, np.int32), np.array(order, np.int32)]


def solve(a: Array, b: Array) -> Array:
    """Return x of a x = b (n, k), by elimination."""
    factors, _, order = lu({}, a)
    return solve_triangular(factors, solve_triangular(factors, b[order], lower=True, unit=True), False, False)


def qr(p: dict, a: Array) -> list[Array]:
    """Householder reflections, with LAPACK's signs: a column's image has the sign opposite to its first entry's."""
    m, n = a.shape
    if p.get("pivoting"):
        raise NotImplementedError("qr with pivoting")
    q = _identity(m, m)
    for k in range(min(m - 1, n)):
        x = a[k:, k]
        norm, first = _do("sqrt", total(x * x, (0,))), x[0]
        signed = norm if _is_zero(first) else norm * _do("sign", first)
        head = first + signed
        v = move(lambda h, d: np.append(h, d[1:])[:, None], head, x)
        v_scaled = v / (signed * head)  # by |v|² / 2
        q, a = (_stack([y[:k], y[k:] - v_scaled @ (v.T @ y[k:])]) for y in (q, a))
    k = m if p["full_matrices"] else min(m, n)
    upper = move(lambda d, z: np.where(np.tri(k, n, -1, dtype=bool), z, d[:k]), a, Array(full(())))
    return [q[:k].T, upper]


def _is_zero(x: Array) -> bool:
    s = compare(x.data.item(), ZERO)
    if isinstance(s, Undecided):
        raise NotDecided(s.why)
    if s == 0 and x.pull is not None:
        raise NotDecided(TIE)
    return s == 0


def eigh(p: dict, a: Array) -> list[Array]:
    """λ + diag(M) and V (1 + F ∘ M), M = Vᵀ (A − A₀) V, F_ij = 1/(λ_j − λ_i): exact to first order around A₀."""
    n = a.shape[0]
    base = np.asarray(np.frompyfunc(limit, 1, 1)(a.data), object)
    base = (
        np.where(np.tri(n, dtype=bool), base, base.T) if p["lower"] else np.where(np.tri(n, dtype=bool).T, base, base.T)
    )
    try:
        values, vectors = acb_mat(n, n, base.ravel().tolist()).eig(right=True)
    except ValueError:
        raise NotDecided(PRECISION) from None  # eigenvalues that balls do not tell apart
    order = sorted(range(n), key=lambda i: float(values[i].real.mid()))
    if any(isinstance(x, acb) for x in base.ravel()):
        raise NotImplementedError("eigh of a complex matrix")
    heads = [max((vectors[i, j] for i in range(n)), key=lambda x: float(x.abs_lower())) for j in order]
    V = np.array([[(vectors[i, j] / h).real for j, h in zip(order, heads, strict=True)] for i in range(n)], object)
    V = V / np.array([(V[:, j] * V[:, j]).sum().sqrt() for j in range(n)], object)
    lam = np.array([values[i].real for i in order], object)
    F = np.array([[ZERO if i == j else 1 / (lam[j] - lam[i]) for j in range(n)] for i in range(n)], object)
    lower = a if p["lower"] else a.T
    gap = move(lambda d: np.where(np.tri(n, dtype=bool), d, d.T), lower) - Array(base)
    M = Array(V.T) @ (gap @ Array(V))
    w = Array(lam) + move(np.diag, M)
    v = Array(V) + Array(V) @ (Array(F) * M)
    return [_to_first_order(v, gap), _to_first_order(w, gap)]


def _to_first_order(x: Array, gap: Array) -> Array:
    order = min((2 * g.lowest for g in gap.data.ravel() if isinstance(g, Germ)), default=EXACT)
    if order < EXACT:
        return Array(np.asarray(x.data + Germ({}, order), object))
    if x.tangent is not None:
        x.tangent = Array(full(x.shape, Undecided(FIRST_ORDER)), (x.tangent, x), _undecided)
    return x


def _undecided(ct: np.ndarray) -> list[np.ndarray]:
    back = full(ct.shape, ABSENT)
    back[~absent(ct)] = Undecided(TIE)
    return [back, back]


def svd(p: dict, a: Array) -> list[Array]:
    """A = U S Vᵀ by the eigenvectors of AᵀA, for singular values that are distinct and not 0."""
    m, n = a.shape
    if m < n:
        s, *rest = svd(p, a.T)
        return [s, *(x.T for x in reversed(rest))]
    if p["full_matrices"] and m != n and p["compute_uv"]:
        raise NotImplementedError("svd with full matrices")
    vectors, squares = eigh({"lower": True}, a.T @ a)
    s = _do("sqrt", squares[::-1])
    if not p["compute_uv"]:
        return [s]
    v = vectors[:, ::-1]
    return [s, a @ v / s[None], v.T]


def householder_product(p: dict, a: Array, taus: Array) -> list[Array]:
    """The first columns of Π (1 − τ v vᵀ), v below the diagonal of a."""
    del p
    m, n = a.shape
    q = _identity(m, n)
    for k in reversed(range(taus.shape[1])):
        head = Array(np.array([*[ZERO] * k, ONE], object))
        v = move(lambda d, h, k=k: np.append(h, d[k + 1 :, k])[:, None], a, head)
        q = q - taus[0, k] * (v @ (v.T @ q))
    return [q]


def tridiagonal_solve(p: dict, lower: Array, main: Array, upper: Array, b: Array) -> list[Array]:
    """Thomas's algorithm: elimination without pivots."""
    del p
    n = b.shape[0]
    diagonal, right, x = [main[0, 0]], _rows(b), {}
    for i in range(1, n):
        factor = lower[0, i] / diagonal[-1]
        diagonal.append(main[0, i] - factor * upper[0, i - 1])
        right[i] = right[i] - factor * right[i - 1]
    for i in reversed(range(n)):
        row = right[i] if i == n - 1 else right[i] - upper[0, i] * x[i + 1]
        x[i] = row / diagonal[i]
    return [_stack([x[i] for i in range(n)])]


def _with_rows(rule: Callable[..., Any]) -> Callable[..., Any]:
    """The rule of a function of matrices, some of whose operands are vectors: as matrices of one row."""

    def widened(eqn: JaxprEqn, *xs: Array) -> Any:
        rank = max(len(x.shape) for x in xs)
        return rule(eqn, *(x if len(x.shape) == rank else x[..., None, :] for x in xs))

    return widened


def symmetric_product(eqn: JaxprEqn, a: Array, c: Array) -> Array:
    """α·A·Aᵀ + β·C."""
    product = matmul(a, move(lambda d: np.swapaxes(d, -1, -2), a))
    return product * eqn.params["alpha"] + c * eqn.params["beta"]


def permutation(eqn: JaxprEqn, pivots: np.ndarray) -> np.ndarray:
    """The permutation that a sequence of exchanges makes."""
    n = eqn.params["permutation_size"]
    out = np.broadcast_to(np.arange(n, dtype=np.int32), (*pivots.shape[:-1], n)).copy()
    for at in np.ndindex(pivots.shape[:-1]):
        for k, i in enumerate(pivots[at]):
            out[at][k], out[at][i] = out[at][i], out[at][k]
    return out


RULES: dict[str, Callable[..., Any]] = {
    "triangular_solve": each_matrix(triangular_solve),
    "cholesky": each_matrix(cholesky),
    "lu": each_matrix(lu),
    "qr": each_matrix(qr),
    "eigh": each_matrix(eigh),
    "svd": each_matrix(svd),
    "householder_product": _with_rows(each_matrix(householder_product)),
    "tridiagonal_solve": _with_rows(each_matrix(tridiagonal_solve)),
    "symmetric_product": symmetric_product,
    "lu_pivots_to_permutation": permutation,
}
