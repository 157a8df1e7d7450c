"""Linear algebra: closed forms of the classical algorithms, since XLA calls a library and counts −1.

Exact operation counts of the textbook loops where they are short; leading orders (Golub and Van Loan,
*Matrix Computations*; LAPACK working note 41), rounded down, where the library iterates. A complex
operation counts as one, as XLA's do. A square root or reciprocal on the diagonal is a transcendental
operation or a division. All are `elementwise`: `matmul` holds dots and convolutions alone.
"""

import math

from jax.extend.core import JaxprEqn

from refgrad.cost.primitives.rule import Rule, Work, far, free, kind
from refgrad.jaxpr.avals import shape_of, size


def _batch(value) -> int:
    return math.prod(shape_of(value)[:-2])


def cholesky(eqn: JaxprEqn) -> Work:
    """Column by column: n square roots, n(n−1)/2 divisions, (n³−n)/3 for the updates."""
    (a,) = eqn.invars
    n = shape_of(a)[-1]
    flops = n * (n - 1) // 2 + (n**3 - n) // 3
    return Work(elementwise=_batch(a) * flops, transcendental=_batch(a) * n)


def cholesky_update(eqn: JaxprEqn) -> Work:
    """n rotations of 5 operations and a root, each applied to the rest of two vectors: 6 an element."""
    (r, _) = eqn.invars
    n, batch = shape_of(r)[-1], _batch(r)
    return Work(elementwise=batch * (5 * n + 3 * n * (n - 1)), transcendental=batch * n)


def lu(eqn: JaxprEqn) -> Work:
    """Σ_k (m−k−1)(1 + 2(n−k−1)): the divisions and the updates; the search for pivots not counted."""
    (a,) = eqn.invars
    m, n = shape_of(a)[-2:]
    flops = sum((m - k - 1) * (1 + 2 * (n - k - 1)) for k in range(min(m, n)))
    return Work(elementwise=_batch(a) * flops)


def triangular_solve(eqn: JaxprEqn) -> Work:
    """n² a right-hand side, less n where the diagonal is 1."""
    a, b = eqn.invars
    n = shape_of(a)[-1]
    columns = size(b) // n
    return Work(elementwise=columns * n * (n - bool(eqn.params["unit_diagonal"])))


def qr(eqn: JaxprEqn) -> Work:
    """Householder reflections, 2mn² − 2n³/3 (m ≥ n), or with m and n exchanged."""
    (a,) = eqn.invars[:1]
    m, n = sorted(shape_of(a)[-2:], reverse=True)
    return Work(elementwise=_batch(a) * ((6 * m * n * n - 2 * n**3) // 3))


def householder_product(eqn: JaxprEqn) -> Work:
    """m × n columns of Q out of k reflectors: 4mnk − 2(m+n)k² + 4k³/3."""
    a, taus = eqn.invars
    (m, n), k = shape_of(a)[-2:], shape_of(taus)[-1]
    return Work(elementwise=_batch(a) * ((12 * m * n * k - 6 * (m + n) * k * k + 4 * k**3) // 3))


def ormqr(eqn: JaxprEqn) -> Work:
    """Q of k reflectors applied to an m × n matrix, from the left: 4mnk − 2nk²."""
    _, taus, c = eqn.invars
    (m, n), k = shape_of(c)[-2:], shape_of(taus)[-1]
    if not eqn.params["left"]:
        m, n = n, m
    return Work(elementwise=_batch(c) * (4 * m * n * k - 2 * n * k * k))


def eigh(eqn: JaxprEqn) -> Work:
    """Tridiagonal form, implicit QR and the vectors: 9n³."""
    return _cubic(eqn, 9, 1)


def svd(eqn: JaxprEqn) -> Work:
    """Cost by QR first (m ≥ n): values 2mn² + 2n³; thin vectors 6mn² + 20n³; full 4m²n + 22n³."""
    (a,) = eqn.invars
    m, n = sorted(shape_of(a)[-2:], reverse=True)
    if not eqn.params["compute_uv"]:
        flops = 2 * m * n * n + 2 * n**3
    elif eqn.params["full_matrices"]:
        flops = 4 * m * m * n + 22 * n**3
    else:
        flops = 6 * m * n * n + 20 * n**3
    return Work(elementwise=_batch(a) * flops)


def eig(eqn: JaxprEqn) -> Work:
    """Hessenberg form and QR: values 10n³; with vectors on either side 25n³."""
    p = eqn.params
    vectors = p["compute_left_eigenvectors"] or p["compute_right_eigenvectors"]
    return _cubic(eqn, 25 if vectors else 10, 1)


def schur(eqn: JaxprEqn) -> Work:
    """Hessenberg form and QR: 25n³, or 10n³ without the vectors."""
    return _cubic(eqn, 25 if eqn.params["compute_schur_vectors"] else 10, 1)


def hessenberg(eqn: JaxprEqn) -> Work:
    """Householder reflections from both sides: 10n³/3."""
    return _cubic(eqn, 10, 3)


def tridiagonal(eqn: JaxprEqn) -> Work:
    """Householder reflections from both sides of a symmetric matrix: 4n³/3."""
    return _cubic(eqn, 4, 3)


def _cubic(eqn: JaxprEqn, numerator: int, denominator: int) -> Work:
    a = eqn.invars[0]
    return Work(elementwise=_batch(a) * (numerator * shape_of(a)[-1] ** 3 // denominator))


def tridiagonal_solve(eqn: JaxprEqn) -> Work:
    """Thomas's algorithm: 3 a row for the matrix, 5 a row and right-hand side."""
    *_, b = eqn.invars
    n, columns = shape_of(b)[-2:]
    return Work(elementwise=_batch(b) * n * (3 + 5 * columns))


def symmetric_product(eqn: JaxprEqn) -> Work:
    """α·A·Aᵀ + β·C: a dot, and three operations an element of the result."""
    a, c = eqn.invars
    n = size(c)
    return Work(matmul=2 * n * shape_of(a)[-1], elementwise=3 * n)


def fft(eqn: JaxprEqn) -> Work:
    """XLA's figure: 8 · (elements of the operand) · Π⌊log2 n⌋ over the transformed axes."""
    (x,) = eqn.invars
    lengths = eqn.params["fft_lengths"]
    flops = 8 * size(x) * math.prod(max(length, 1).bit_length() - 1 for length in lengths)
    real = kind(x) != "complex" or kind(eqn.outvars[0]) != "complex"
    points = max(size(x), size(eqn.outvars[0]))
    done = round((2.5 if real else 5) * points * sum(math.log2(max(n, 1)) for n in lengths))
    return Work(elementwise=flops, about=far(flops, done, f"{'2.5' if real else '5'}·n·log2 n"))


RULES: dict[str, Rule] = {
    "cholesky": cholesky,
    "cholesky_update": cholesky_update,
    "lu": lu,
    "lu_pivots_to_permutation": free,
    "triangular_solve": triangular_solve,
    "qr": qr,
    "geqrf": qr,
    "geqp3": qr,
    "householder_product": householder_product,
    "ormqr": ormqr,
    "eigh": eigh,
    "eig": eig,
    "svd": svd,
    "schur": schur,
    "hessenberg": hessenberg,
    "tridiagonal": tridiagonal,
    "tridiagonal_solve": tridiagonal_solve,
    "symmetric_product": symmetric_product,
    "fft": fft,
}
