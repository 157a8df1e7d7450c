"""lineax: norms and linear solves."""

import jax.numpy as jnp
import lineax as lx
import numpy as np

from world.use import Use, normal, positive

SQUARE = normal(3, 3) + 3 * np.eye(3, dtype=np.float32)
SPD = (lambda a: (a @ a.T + np.eye(3)).astype(np.float32))(normal(3, 3))


def solve(solver, tag=()):
    """Return a linear solve by one solver, as a function of a and b."""

    def solved(a, b):
        return lx.linear_solve(lx.MatrixLinearOperator(a, tag), b, solver).value

    return solved


def spd(solver):
    """Return a solve with the symmetric part of a, tagged positive semidefinite."""

    def solved(a, b):
        a = (a + a.T) / 2
        return lx.linear_solve(lx.MatrixLinearOperator(a, lx.positive_semidefinite_tag), b, solver).value

    return solved


def symmetric(a, b):
    """Solve with the symmetric part of a."""
    return jnp.linalg.solve((a + a.T) / 2, b)


def least_squares(a, b):
    """Return the least-squares solution by the normal equations."""
    return jnp.linalg.solve(a.T @ a, a.T @ b)


def tridiagonal(d, l, u, b):
    """Solve a tridiagonal system by its three diagonals."""
    return lx.linear_solve(lx.TridiagonalLinearOperator(d, l, u), b, lx.Tridiagonal()).value


def dense(d, l, u, b):
    """Solve the same system as a dense one."""
    return jnp.linalg.solve(jnp.diag(d) + jnp.diag(l, -1) + jnp.diag(u, 1), b)


TRIPLE = (2 + positive(4), normal(3), normal(3, seed=1), normal(4))
BOTH = (SQUARE, normal(3))

USES = [
    Use("two_norm", lx.internal.two_norm, (normal(4),), plain=lambda x: jnp.sqrt(jnp.sum(x * x))),
    Use("two_norm of a tree", lx.internal.two_norm, ({"a": normal(2), "b": normal(2, 2)},)),
    Use("two_norm of one entry", lx.internal.two_norm, (np.float32(-2),), plain=jnp.abs),
    Use("two_norm, complex", lx.internal.two_norm, ((normal(3) + 1j * normal(3, seed=1)).astype(np.complex64),)),
    Use("rms_norm", lx.internal.rms_norm, (normal(4),), plain=lambda x: jnp.sqrt(jnp.mean(x * x))),
    Use("max_norm", lx.internal.max_norm, (normal(4),), plain=lambda x: jnp.max(jnp.abs(x))),
    Use("linear_solve, LU", solve(lx.LU()), BOTH, plain=jnp.linalg.solve),
    Use(
        "linear_solve, QR", solve(lx.QR()), (normal(4, 2), normal(4, seed=1)), {"tolerance": 1e-4}, plain=least_squares
    ),
    Use(
        "linear_solve, SVD",
        solve(lx.SVD()),
        (normal(4, 2), normal(4, seed=1)),
        {"tolerance": 1e-4},
        plain=least_squares,
    ),
    Use("linear_solve, Cholesky", spd(lx.Cholesky()), (SPD, normal(3)), plain=symmetric),
    Use("linear_solve, CG", spd(lx.CG(1e-6, 1e-6)), (SPD, normal(3)), {"tolerance": 1e-3}, plain=symmetric),
    Use("linear_solve, GMRES", solve(lx.GMRES(1e-6, 1e-6)), BOTH, {"tolerance": 1e-3}, plain=jnp.linalg.solve),
    Use(
        "linear_solve, BiCGStab",
        solve(lx.BiCGStab(1e-6, 1e-6)),
        BOTH,
        {"tolerance": 1e-3},
        expected="wrong",
        why="the backward raises: its solve with the transposed matrix ends in a breakdown, as lineax says",
        plain=jnp.linalg.solve,
    ),
    Use("linear_solve, automatic", solve(lx.AutoLinearSolver(well_posed=True)), BOTH, plain=jnp.linalg.solve),
    Use(
        "linear_solve, triangular",
        solve(lx.Triangular(), lx.lower_triangular_tag),
        (np.tril(SQUARE), normal(3)),
        {"argnums": 1},
        plain=jnp.linalg.solve,
    ),
    Use("linear_solve, tridiagonal", tridiagonal, TRIPLE, plain=dense),
    Use(
        "linear_solve, diagonal",
        lambda d, b: lx.linear_solve(lx.DiagonalLinearOperator(d), b, lx.Diagonal()).value,
        (positive(3), normal(3)),
        plain=lambda d, b: b / d,
    ),
]
