"""optimistix: implicit gradients of roots, fixed points, minima and least squares."""

import jax.numpy as jnp
import numpy as np
import optimistix as optx

from world.use import Use, normal, positive

DATA, TARGET = normal(6, 2), normal(6, seed=1)
LOOSE = {"tolerance": 1e-3}


def root(solver, start=1.0):
    """Return a solver's cube root of a, as a function."""

    def solved(a):
        return optx.root_find(lambda x, a: x**3 - a, solver, jnp.full(2, start), a, max_steps=64).value

    return solved


def cube_root(a):
    """Return a^(1/3)."""
    return a ** (1 / 3)


def bisected(a):
    """Return the cube root of a by bisection."""
    solver = optx.Bisection(1e-6, 1e-6)
    options = {"lower": 0.0, "upper": 3.0}
    return optx.root_find(lambda x, a: x**3 - a, solver, jnp.float32(1), a, options=options, max_steps=64).value


def fixed(a):
    """Return √a as the fixed point of x ← (x + a/x)/2."""
    return optx.fixed_point(lambda x, a: (x + a / x) / 2, optx.FixedPointIteration(1e-6, 1e-6), jnp.ones(2), a).value


def ridge(solver):
    """Return ridge regression by one minimiser, as a function of the penalty."""

    def solved(l2):
        def objective(w, l2):
            return 0.5 * jnp.sum((DATA @ w - TARGET) ** 2) + 0.5 * l2 * jnp.sum(w * w)

        return optx.minimise(objective, solver, jnp.zeros(2), l2, max_steps=256).value

    return solved


def least_squares(solver):
    """Return ridge regression by one least-squares solver, as a function of the penalty."""

    def solved(l2):
        def residuals(w, l2):
            return jnp.concatenate([DATA @ w - TARGET, jnp.sqrt(l2) * w])

        return optx.least_squares(residuals, solver, jnp.zeros(2), l2, max_steps=256).value

    return solved


def normal_equations(l2):
    """Return ridge regression's weights by the normal equations."""
    return jnp.linalg.solve(DATA.T @ DATA + l2 * jnp.eye(2), DATA.T @ TARGET)


L2 = (np.float32(2),)

USES = [
    Use("root_find, Newton", root(optx.Newton(1e-6, 1e-6)), (positive(2),), LOOSE, plain=cube_root),
    Use("root_find, chord", root(optx.Chord(1e-6, 1e-6)), (positive(2),), LOOSE, plain=cube_root),
    Use(
        "root_find, bisection",
        bisected,
        L2,
        LOOSE | {"reference": cube_root},
        expected="meant to differ",
        why="a bisection is constant between its halves; the gradient is that of the root",
    ),
    Use("root_find, Dogleg", root(optx.Dogleg(1e-6, 1e-6)), (positive(2),), LOOSE, plain=cube_root),
    Use("fixed_point", fixed, (positive(2),), LOOSE, plain=jnp.sqrt),
    Use("minimise, BFGS", ridge(optx.BFGS(1e-6, 1e-6)), L2, LOOSE, plain=normal_equations),
    Use("minimise, nonlinear CG", ridge(optx.NonlinearCG(1e-6, 1e-6)), L2, LOOSE, plain=normal_equations),
    Use("least_squares, Gauss-Newton", least_squares(optx.GaussNewton(1e-6, 1e-6)), L2, LOOSE, plain=normal_equations),
    Use(
        "least_squares, Levenberg-Marquardt",
        least_squares(optx.LevenbergMarquardt(1e-6, 1e-6)),
        L2,
        LOOSE,
        plain=normal_equations,
    ),
    Use("two_norm", optx.two_norm, (normal(3),), plain=lambda x: jnp.sqrt(jnp.sum(x * x))),
    Use("rms_norm", optx.rms_norm, (normal(3),), plain=lambda x: jnp.sqrt(jnp.mean(x * x))),
    Use("max_norm", optx.max_norm, (normal(3),), plain=lambda x: jnp.max(jnp.abs(x))),
]
