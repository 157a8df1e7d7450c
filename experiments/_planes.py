"""Points in the plane, networks that tell their classes apart, and the pictures of what they learned."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _optax import optax

from refgrad.models import mlp
from refgrad.ops import operations
from refgrad.report.figures import BLUE, INK, VERMILLION

MARGIN = 1.0  # of the hinge loss


def fit(
    x: np.ndarray, labels: np.ndarray, hidden: tuple[int, ...], strength: float, steps: int, rate: float, seed: int = 0
) -> tuple[mlp.Params, list[float]]:
    """Train 2 → hidden → 2 with tanh between, hinge loss and L2 penalty, by derived rules and Adam on all points.

    Returns the parameters and the loss before each step.
    """
    ops, optimizer = operations("derived"), optax.adam(rate)
    params = mlp.init(jax.random.key(seed), (x.shape[1], *hidden, 2))
    inputs, targets = jnp.asarray(x, jnp.float32), jnp.asarray(labels, jnp.int32)

    def total(params: mlp.Params) -> jax.Array:
        data = ops.hinge(mlp.apply(params, inputs, "tanh"), targets, MARGIN)
        for name in sorted(params):
            if name.startswith("W"):
                data = ops.add(data, ops.l2_penalty(params[name], strength))
        return data

    def step(carry: Any, _: None) -> tuple[Any, jax.Array]:
        params, state = carry
        loss, grads = jax.value_and_grad(total)(params)
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), loss

    (params, _), losses = jax.jit(lambda carry: jax.lax.scan(step, carry, None, steps))(
        (params, optimizer.init(params))
    )
    return params, losses.tolist()


def accuracy(params: mlp.Params, x: np.ndarray, labels: np.ndarray) -> float:
    """The share of points that the network gives their own label."""
    scores = mlp.apply(params, jnp.asarray(x, jnp.float32), "tanh")
    return float(np.mean(np.argmax(scores, axis=-1) == labels))


def edge_length(params: mlp.Params, low: tuple[float, float], high: tuple[float, float], cells: int = 200) -> float:
    """Length of the decision boundary within a box, in the box's units: how wiggly it is.

    Sides of cells across which the label changes, times their length; the grid's corners make it 4/π too long for a
    boundary without a preferred direction, which is divided out.
    """
    _, _, labels = grid(params, low, high, cells)
    width, height = ((b - a) / (cells - 1) for a, b in zip(low, high, strict=True))
    across = np.sum(labels[:, 1:] != labels[:, :-1]) * height
    along = np.sum(labels[1:] != labels[:-1]) * width
    return float((across + along) * math.pi / 4)


def grid(params: mlp.Params, low: tuple[float, float], high: tuple[float, float], cells: int):
    """(x, y, label) on cells × cells points of a box."""
    x, y = (np.linspace(a, b, cells) for a, b in zip(low, high, strict=True))
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    scores = mlp.apply(params, jnp.asarray(points, jnp.float32), "tanh")
    return x, y, np.argmax(scores, axis=-1).reshape(cells, cells)


def paint(
    axes: Any,
    params: mlp.Params,
    x: np.ndarray,
    labels: np.ndarray,
    low: tuple[float, float],
    high: tuple[float, float],
) -> None:
    """The two regions, the boundary between them, and the points: circles and squares."""
    across, up, regions = grid(params, low, high, 240)
    axes.contourf(across, up, regions, levels=[-0.5, 0.5, 1.5], colors=[VERMILLION, BLUE], alpha=0.22)
    axes.contour(across, up, regions, levels=[0.5], colors=[INK], linewidths=1.2)
    for label, (color, marker) in enumerate(((VERMILLION, "o"), (BLUE, "s"))):
        axes.plot(*x[labels == label].T, marker, color=color, markersize=3.5, label=f"class {label}")
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    axes.grid(visible=False)
