"""Closed forms of linear algebra against the textbook algorithms, run with every operation counted."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from refgrad.cost import count
from tests.cost.lax_samples import spec

SIZES = [(1, 1), (2, 2), (5, 5), (7, 4), (4, 7), (9, 6)]


class Number:
    """A number that counts the operations done on it."""

    done = 0

    def __init__(self, value):
        self.value = value

    def _apply(self, f, other):
        Number.done += 1
        return Number(f(self.value, other.value))

    def __add__(self, other):
        return self._apply(lambda a, b: a + b, other)

    def __sub__(self, other):
        return self._apply(lambda a, b: a - b, other)

    def __mul__(self, other):
        return self._apply(lambda a, b: a * b, other)

    def __truediv__(self, other):
        return self._apply(lambda a, b: a / b, other)


def numbers(*shape, seed=0):
    values = np.random.default_rng(seed).normal(size=shape) + 3 * np.eye(*shape[:2])
    return np.vectorize(Number, otypes=[object])(values)


def operations(algorithm, *args):
    Number.done = 0
    algorithm(*args)
    return Number.done


def eliminate(a):
    """LU without pivots, in place."""
    m, n = a.shape
    for k in range(min(m, n)):
        for i in range(k + 1, m):
            a[i, k] = a[i, k] / a[k, k]
            for j in range(k + 1, n):
                a[i, j] = a[i, j] - a[i, k] * a[k, j]


def cholesky(a):
    """Column by column, the square roots aside."""
    n = len(a)
    for j in range(n):
        for i in range(j, n):
            for k in range(j):
                a[i, j] = a[i, j] - a[i, k] * a[j, k]
            if i > j:
                a[i, j] = a[i, j] / a[j, j]


def substitute(a, b, unit):
    """Forward substitution."""
    for column in range(b.shape[1]):
        for i in range(len(a)):
            for k in range(i):
                b[i, column] = b[i, column] - a[i, k] * b[k, column]
            if not unit:
                b[i, column] = b[i, column] / a[i, i]


def householder(a):
    """Reflections of what is left of the matrix; roots aside."""
    m, n = a.shape
    for k in range(min(m, n)):
        v = a[k:, k].copy()
        norm = sum((x * x for x in v[1:]), v[0] * v[0])
        v[0] = v[0] + norm
        scale = norm / norm
        for j in range(k, n):
            projection = scale * sum((x * y for x, y in zip(v[1:], a[k + 1 :, j], strict=True)), v[0] * a[k, j])
            for i in range(m - k):
                a[k + i, j] = a[k + i, j] - projection * v[i]


@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_lu(shape):
    assert count(lax.linalg.lu, spec(*shape)).flops == operations(eliminate, numbers(*shape))


@pytest.mark.parametrize("n", (1, 2, 5, 8))
def test_cholesky(n):
    f = lambda a: lax.linalg.cholesky(a, symmetrize_input=False)  # noqa: E731
    cost = count(f, spec(n, n)).by_primitive["cholesky"]
    assert (cost.flops, cost.transcendental) == (operations(cholesky, numbers(n, n)), n)
    batched = count(f, spec(3, n, n)).by_primitive["cholesky"]
    assert batched.total[:3] == cost.total.times(3)[:3]


@pytest.mark.parametrize("unit", (False, True))
@pytest.mark.parametrize(("n", "columns"), [(1, 1), (5, 3), (6, 1)])
@pytest.mark.parametrize("left", (False, True))
def test_triangular_solve(n, columns, unit, left):
    f = lambda a, b: lax.linalg.triangular_solve(a, b, left_side=left, lower=True, unit_diagonal=unit)  # noqa: E731
    b = spec(n, columns) if left else spec(columns, n)
    assert count(f, spec(n, n), b).flops == operations(substitute, numbers(n, n), numbers(n, columns), unit)


@pytest.mark.parametrize("shape", [(60, 60), (90, 50)], ids=str)
def test_qr_to_leading_order(shape):
    f = lambda a: lax.linalg.qr(a, full_matrices=False)  # noqa: E731
    cost = count(f, spec(*shape)).by_primitive["qr"]
    assert cost.flops == pytest.approx(operations(householder, numbers(*shape)), rel=0.05)


@pytest.mark.parametrize(
    ("f", "flops"),
    [
        (lax.linalg.eigh, 9 * 1000),
        (lambda a: lax.linalg.svd(a, compute_uv=False), 4 * 1000),
        (lambda a: lax.linalg.svd(a, full_matrices=False), 26 * 1000),
        (lambda a: lax.linalg.svd(a), 26 * 1000),
        (lax.linalg.eig, 25 * 1000),
        (lax.linalg.schur, 25 * 1000),
        (lax.linalg.hessenberg, 10 * 1000 // 3),
        (lax.linalg.tridiagonal, 4 * 1000 // 3),
    ],
)
def test_leading_orders(f, flops):
    library = max(count(f, spec(10, 10)).by_primitive.values(), key=lambda part: part.flops)
    assert library.flops == flops


def test_a_solve_runs_its_solver_alone():
    """Elimination, two substitutions a column; not the products that its derivative needs."""
    n, columns = 8, 3
    cost = count(jnp.linalg.solve, spec(n, n), spec(n, columns))
    assert cost.matmul == 0
    assert cost.by_primitive["triangular_solve"].flops == columns * (n * n + n * (n - 1))
