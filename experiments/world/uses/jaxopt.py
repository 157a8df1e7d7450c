"""jaxopt: projections, proximal operators, implicit differentiation of solvers, perturbed maxima."""

import functools

import jax
import jax.numpy as jnp
import jaxopt
import numpy as np
from jaxopt import implicit_diff, isotonic, loss, perturbations, projection, prox

from world.use import Use, normal, positive, simplex

DATA, TARGET = normal(6, 3), normal(6, seed=1)


@implicit_diff.custom_root(jax.grad(lambda w, l2: 0.5 * jnp.sum((DATA @ w - TARGET) ** 2) + 0.5 * l2 * jnp.sum(w * w)))
def ridge(init, l2):
    """Return ridge regression's weights, differentiated implicitly."""
    return normal_equations(l2)


def normal_equations(l2):
    """Return ridge regression's weights by the normal equations."""
    return jnp.linalg.solve(DATA.T @ DATA + l2 * jnp.eye(3), DATA.T @ TARGET)


def ridge_by_descent(l2):
    """Return ridge regression's weights by gradient descent."""

    def objective(w, l2):
        return 0.5 * jnp.sum((DATA @ w - TARGET) ** 2) + 0.5 * l2 * jnp.sum(w * w)

    return jaxopt.GradientDescent(objective, maxiter=500, tol=1e-7).run(jnp.zeros(3), l2).params


def ridge_by_newton(l2):
    """Return ridge regression's weights by L-BFGS."""

    def objective(w, l2):
        return 0.5 * jnp.sum((DATA @ w - TARGET) ** 2) + 0.5 * l2 * jnp.sum(w * w)

    return jaxopt.LBFGS(objective, maxiter=50, tol=1e-7).run(jnp.zeros(3), l2).params


def bisection(a):
    """Solve x³ + x = a by bisection."""
    return jaxopt.Bisection(lambda x, a: x**3 + x - a, lower=0, upper=3, check_bracket=False).run(a=a).params


def fixed_point(a):
    """Return √a as the fixed point of x ← (x + a/x)/2."""
    return jaxopt.FixedPointIteration(lambda x, a: 0.5 * (x + a / x), maxiter=50, tol=1e-7).run(jnp.ones(2), a).params


def first(x):
    """Return the one-hot vector of the largest entry."""
    return jax.nn.one_hot(jnp.argmax(x), 3)


def perturbed_max(x):
    """Return the mean argmax over 16 perturbations of x."""
    return perturbations.make_perturbed_argmax(first, num_samples=16, sigma=0.5)(x, jax.random.PRNGKey(0))


def estimate(x):
    """Return its estimate of the gradient of the smoothed function: E[f(x + σz) ν'(z)]/σ, by the same draws z."""
    draws = jax.random.gumbel(jax.random.PRNGKey(0), (16, 3))
    weights = jax.vmap(first)(x + 0.5 * draws) / (16 * 0.5)
    return weights.T @ ((1 - jnp.exp(-draws)) @ x)


def cubic(a):
    """Solve x³ + x = a by Cardano's formula."""
    return (a / 2 + jnp.sqrt(a * a / 4 + 1 / 27)) ** (1 / 3) - (jnp.sqrt(a * a / 4 + 1 / 27) - a / 2) ** (1 / 3)


USES = [
    Use("projection_simplex", projection.projection_simplex, (normal(5),)),
    Use("projection_simplex, value 2", projection.projection_simplex, (normal(5), np.float32(2))),
    Use("projection_sparse_simplex", functools.partial(projection.projection_sparse_simplex, max_nz=2), (normal(5),)),
    Use("projection_l1_ball", projection.projection_l1_ball, (normal(4), np.float32(1.5))),
    Use(
        "projection_l2_ball",
        projection.projection_l2_ball,
        (normal(4), np.float32(0.5)),
        plain=lambda x, r: x * r / jnp.sqrt(jnp.sum(x * x)),
    ),
    Use("projection_hyperplane", projection.projection_hyperplane, (normal(3), (normal(3, seed=1), np.float32(1)))),
    Use("projection_halfspace", projection.projection_halfspace, (normal(3), (normal(3, seed=1), np.float32(-1)))),
    Use("projection_box", projection.projection_box, (normal(4), (np.float32(-0.5), np.float32(0.5)))),
    Use(
        "projection_box_section",
        projection.projection_box_section,
        (normal(3), (-np.ones(3, np.float32), np.ones(3, np.float32), positive(3), np.float32(0.5))),
        {"tolerance": 1e-4},
        expected="wrong",
        why="raises in scan and checkpoint: its rule closes over bounds that are computed from x",
    ),
    Use("prox_lasso", prox.prox_lasso, (normal(4), np.float32(0.3))),
    Use("prox_group_lasso", prox.prox_group_lasso, (normal(4), np.float32(0.3))),
    Use("prox_log_loss", lambda x: prox.make_prox_from_projection(projection.projection_simplex)(x), (normal(4),)),
    Use("isotonic regression", isotonic.isotonic_l2_pav, (normal(4),), {"order": 1}),
    Use(
        "multiclass_logistic_loss",
        loss.multiclass_logistic_loss,
        (np.int32(1), normal(4)),
        plain=lambda y, x: jnp.log(jnp.sum(jnp.exp(x))) - x[1],
    ),
    Use(
        "binary_logistic_loss",
        loss.binary_logistic_loss,
        (np.int32(1), np.float32(0.7)),
        plain=lambda y, x: jnp.log1p(jnp.exp(-x)),
    ),
    Use("multiclass_sparsemax_loss", loss.multiclass_sparsemax_loss, (np.int32(1), normal(4))),
    Use("binary_sparsemax_loss", loss.binary_sparsemax_loss, (np.int32(1), np.float32(0.3))),
    Use("huber_loss", loss.huber_loss, (np.float32(0.3), np.float32(2)), {"argnums": 1}),
    Use(
        "custom_root, ridge", lambda l2: ridge(None, l2), (np.float32(2),), {"tolerance": 1e-4}, plain=normal_equations
    ),
    Use(  # its minimum is found to 1e-7 of the parameters, of which l2 moves 1e-2
        "GradientDescent, ridge",
        ridge_by_descent,
        (np.float32(2),),
        {"tolerance": 1e-2},
        plain=normal_equations,
    ),
    Use("LBFGS, ridge", ridge_by_newton, (np.float32(2),), {"tolerance": 1e-3}, plain=normal_equations),
    Use(
        "Bisection",
        bisection,
        (np.float32(2),),
        {"tolerance": 1e-3, "reference": cubic},
        expected="meant to differ",
        why="a bisection is constant between its halves; the gradient is that of the root",
    ),
    Use("FixedPointIteration", fixed_point, (positive(2),), {"tolerance": 1e-3}, plain=jnp.sqrt),
    Use(
        "perturbed argmax",
        perturbed_max,
        (simplex(3),),
        {"reference": estimate},
        expected="meant to differ",
        why="a Monte Carlo estimate of the gradient of a smoothed function",
    ),
]
