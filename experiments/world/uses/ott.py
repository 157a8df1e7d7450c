"""ott-jax: norms, log-sums, soft minima, fixed points, Sinkhorn."""

import functools

import jax.numpy as jnp
import numpy as np
from ott.geometry import costs, pointcloud
from ott.math import matrix_square_root, utils
from ott.solvers import linear
from ott.tools import sinkhorn_divergence, soft_sort

from world.use import Use, normal, positive, simplex

X, Y = normal(4, 2), normal(5, 2, seed=1)
SPD = (lambda a: (a @ a.T + np.eye(3)).astype(np.float32))(normal(3, 3))
ROW = np.array([[0, 0], [3, 4]], np.float32)


def rows(x):
    """Return the norm of each row."""
    return utils.norm(x, axis=-1)


def divergence(x, y, cost=None):
    """Return the Sinkhorn divergence of two sets of points."""
    return sinkhorn_divergence.sinkdiv(x, y, cost_fn=cost or costs.SqEuclidean(), epsilon=0.5)[0]


def transport(x, y):
    """Return the regularised cost of transport between two sets of points."""
    return linear.solve(pointcloud.PointCloud(x, y, epsilon=0.5), threshold=1e-6).reg_ot_cost


def transport_weights(a, b):
    """Return the regularised cost of transport between two weightings of fixed points."""
    return linear.solve(pointcloud.PointCloud(X, Y, epsilon=0.5), a=a, b=b, threshold=1e-6).reg_ot_cost


def softmin(x):
    """Return the soft minimum at γ = 0.5."""
    return utils.softmin(x, 0.5)


def square_root(a):
    """Return the square root of a matrix."""
    return matrix_square_root.sqrtm_only(a)


USES = [
    Use("norm", utils.norm, (normal(4),), plain=lambda x: jnp.sqrt(jnp.sum(x * x))),
    Use("norm of rows", rows, (X,), plain=lambda x: jnp.sqrt(jnp.sum(x * x, -1))),
    Use(
        "norm at 0",
        utils.norm,
        (np.zeros(3, np.float32),),
        expected="wrong",
        why="value_and_grad returns sqrt(3) for 0: the rule's value is that of the replaced argument",
    ),
    Use(
        "norm with a zero row",
        rows,
        (ROW,),
        expected="wrong",
        why="the guard tests the whole array: the gradient of the zero row is NaN",
    ),
    Use(
        "logsumexp",
        utils.logsumexp,
        (normal(2, 3),),
        {"kwargs": {"axis": -1}},
        plain=lambda x, axis: jnp.log(jnp.sum(jnp.exp(x), axis)),
    ),
    Use(
        "logsumexp, weighted",
        lambda x, b: utils.logsumexp(x, 1, False, b),
        (normal(2, 3), positive(2, 3)),
        plain=lambda x, b: jnp.log(jnp.sum(b * jnp.exp(x), 1)),
    ),
    Use(
        "logsumexp of a row of -inf",
        lambda x: utils.logsumexp(x, axis=-1),
        (np.array([[-np.inf, -np.inf], [0, 1]], np.float32),),
        expected="wrong",
        why="value_and_grad returns 0 for -inf",
    ),
    Use("softmin", softmin, (normal(4),), plain=lambda x: -0.5 * jnp.log(jnp.sum(jnp.exp(-2 * x)))),
    Use(
        "softmin in gamma",
        lambda x, gamma: utils.softmin(x, gamma),
        (normal(4), np.float32(0.5)),
        expected="wrong",
        why="the gradient in gamma is always 0",
        plain=lambda x, g: -g * jnp.log(jnp.sum(jnp.exp(-x / g))),
    ),
    Use("lambertw", utils.lambertw, (positive(4),), {"tolerance": 1e-5}),
    Use("sqrtm_only", square_root, (SPD,), {"tolerance": 1e-3}),
    Use("inv_sqrtm_only", matrix_square_root.inv_sqrtm_only, (SPD,), {"tolerance": 1e-3}),
    Use("sqrtm", lambda a: matrix_square_root.sqrtm(a)[0], (SPD,), {"tolerance": 1e-3}),
    Use(
        "Euclidean cost",
        costs.Euclidean(),
        (normal(3), normal(3, seed=1)),
        plain=lambda x, y: jnp.sqrt(jnp.sum((x - y) ** 2)),
    ),
    Use(
        "Euclidean cost of equals",
        costs.Euclidean(),
        (normal(3), normal(3)),
        expected="wrong",
        why="norm at 0: value_and_grad returns sqrt(3) for 0",
    ),
    Use(
        "cosine cost",
        costs.Cosine(),
        (normal(3), normal(3, seed=1)),
        plain=lambda x, y: 1 - jnp.dot(x, y) / jnp.sqrt(jnp.dot(x, x) * jnp.dot(y, y)),
    ),
    Use(
        "p-norm cost",
        costs.PNormP(1.5),
        (normal(3), normal(3, seed=1)),
        plain=lambda x, y: jnp.sum(jnp.abs(x - y) ** 1.5) / 1.5,
    ),
    Use(
        "soft DTW",
        costs.SoftDTW(gamma=1.0),
        (normal(3), normal(4, seed=1)),
        expected="wrong",
        why="reverse over reverse is NaN: the infinite border of the table reaches the rule of logsumexp",
    ),
    Use("Sinkhorn, points", transport, (X, Y), {"tolerance": 5e-3}),
    Use("Sinkhorn, weights", transport_weights, (simplex(4), simplex(5, seed=1)), {"tolerance": 5e-3}),
    Use("Sinkhorn divergence", divergence, (X, Y), {"tolerance": 5e-3, "seconds": 300}),
    Use(
        "Sinkhorn divergence, Euclidean",
        functools.partial(divergence, cost=costs.Euclidean()),
        (X, Y),
        {"tolerance": 5e-3, "seconds": 300},
        expected="wrong",
        why="its value under value_and_grad is another: norm at 0",
    ),
    Use(
        "soft sort",
        functools.partial(soft_sort.sort, epsilon=0.5),
        (normal(4),),
        {"tolerance": 5e-3},
        expected="wrong",
        why="its backward raises: the linear system of the implicit gradient is singular",
    ),
    Use(
        "soft rank",
        functools.partial(soft_sort.ranks, epsilon=0.5),
        (normal(4),),
        {"tolerance": 5e-3},
        expected="wrong",
        why="its backward raises at most cotangents: the linear system of the implicit gradient is singular",
    ),
]
