"""D1's rules: the one-hidden-layer network (D1.1), single operations (D1.3 to D1.7) and the batch (D1.8)."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import jax
import numpy as np

from refgrad.claims._ledger import Case, deferred
from refgrad.claims._oracle import at, at_sizes, gradients, normal, pullback, value, weighted
from refgrad.claims._rows import claims
from refgrad.models import one_hidden_layer
from refgrad.ops import operations

OPS = operations("derived")
NETWORKS = ({"B": 2, "D": 3, "H": 4, "O": 1}, {"B": 5, "D": 7, "H": 3, "O": 2}, {"B": 8, "D": 2, "H": 6, "O": 5})
LINEAR = ({"B": 5, "d": 3, "h": 4}, {"B": 2, "d": 7, "h": 3}, {"B": 9, "d": 4, "h": 6})
SHAPES = ((4,), (3, 5), (2, 6, 3))
# A sigmoid is saturated within 0.01 of 0 or 1; its slope is small below 0.01; a product of slopes vanishes below 1e-6.
BOUNDS = {"near": 0.01, "small": 0.01, "vanished": 1e-6}


def _network_loss(W1: Any, b1: Any, W2: Any, b2: Any, x: Any, y: Any) -> Any:
    """D1's network with weights stored out × in and the mean squared error."""
    return one_hidden_layer.loss({"W1": W1, "b1": b1, "W2": W2, "b2": b2}, x, y)


@at_sizes(NETWORKS)
def network(B: int, D: int, H: int, O: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The network's arrays, and the gradient of each."""
    x, y = normal(0, B, D), normal(1, B, O)
    W1, b1, W2, b2 = normal(2, H, D), normal(3, H), normal(4, O, H), normal(5, O)
    pulled = gradients(lambda *leaves: _network_loss(*leaves, y=y), W1, b1, W2, b2, x)
    truth = dict(zip(("W1", "b1", "W2", "b2", "x"), pulled, strict=True))
    h = x @ W1.T + b1
    a = 1 / (1 + np.exp(-h))
    o = a @ W2.T + b2
    (da,) = gradients(lambda a: OPS.squared_error_mean(OPS.dense(a, W2, b2), y), a)
    (dh,) = gradients(lambda h: OPS.squared_error_mean(OPS.dense(OPS.sigmoid(h), W2, b2), y), h)
    (do,) = gradients(lambda o: OPS.squared_error_mean(o, y), o)
    values = {"x": x, "W1": W1, "W2": W2, "h": h, "a": a, "do": do, "da": da, "dh": dh}
    return values, {**truth, "a": da, "h": dh}


def _squared(x: Any) -> Any:
    """x² of a mul gate."""
    return OPS.mul(x, x)


square = pullback(_squared, SHAPES, ("x", "dz"))
relu = pullback(OPS.relu, SHAPES, ("h", "da"))
sigmoid = pullback(OPS.sigmoid, SHAPES, ("x", "dy"), scale=3.0)


def _scalar_loss(w: Any, x: Any, b: Any) -> Any:
    """L = (w x + b)² of gates."""
    return _squared(OPS.add(OPS.mul(w, x), b))


@deferred
def scalar(name: str) -> Iterator[Case]:
    """L or one of its gradients at w = 3, x = 2, b = 1."""
    point = {"w": np.float64(3), "x": np.float64(2), "b": np.float64(1)}
    found = dict(zip(point, gradients(_scalar_loss, *point.values()), strict=True))
    found["L"] = np.asarray(_scalar_loss(*point.values()))
    found["y"] = gradients(_squared, point["w"] * point["x"] + point["b"])[0]
    yield Case("w=3, x=2, b=1", point, found[name])


@at_sizes(LINEAR)
def linear(B: int, d: int, h: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A dense layer's arrays; its value and its gradients."""
    X, W, b, dY = normal(0, B, d), normal(1, h, d), normal(2, h), normal(3, B, h)
    dX, dW, db = gradients(weighted(OPS.dense, dY), X, W, b)
    truth = {"Y": value(OPS.dense, X, W, b), "X": dX, "W": dW, "b": db}
    return {"X": X, "W": W, "b": b, "dY": dY}, truth


def relu_example() -> Iterator[Case]:
    """The gradient through ReLU at D1's three numbers."""
    yield Case("x=[−2, 1, 3]", {}, gradients(lambda x: OPS.relu(x).sum(), np.array([-2.0, 1.0, 3.0]))[0])


def relu_at_zero() -> Iterator[Case]:
    """The rule at 0, and the slopes on both sides of it."""
    below, at_zero, above = value(jax.vmap(jax.grad(OPS.relu)), np.array([-1e-9, 0.0, 1e-9]))
    yield Case("", {"below": float(below), "at_zero": float(at_zero), "above": float(above)})


def saturated() -> Iterator[Case]:
    """σ and its slope by the rule, on both sides and between."""
    x = np.array([-20.0, -6.0, 5.0, 12.0])
    for point, sigma, slope in zip(x, *value(jax.vmap(jax.value_and_grad(OPS.sigmoid)), x), strict=True):
        yield Case(f"x={point:g}", {**BOUNDS, "sigma": float(sigma), "slope": float(slope)})


def repeated() -> Iterator[Case]:
    """The slope of many sigmoids in a row."""
    for depth in (12, 20, 40):
        yield Case(f"{depth} in a row", {**BOUNDS, "slope": _slope(depth), "depth": depth})


def _slope(depth: int) -> float:
    """The derivative of `depth` sigmoids in a row at 0.5."""

    def chain(x: Any) -> Any:
        return jax.lax.scan(lambda x, _: (OPS.sigmoid(x), None), x, None, length=depth)[0]

    return float(value(jax.grad(chain), np.float64(0.5)))


@cache
def _examples(B: int, D: int, H: int, O: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Each parameter's gradient by every example alone, and that of the mean over the batch."""
    x, y = normal(0, B, D), normal(1, B, O)
    params = {"W1": normal(2, H, D), "b1": normal(3, H), "W2": normal(4, O, H), "b2": normal(5, O)}
    truth = gradients(lambda *leaves: _network_loss(*leaves, x=x, y=y), *params.values())
    alone = jax.vmap(jax.grad(_network_loss, (0, 1, 2, 3)), (None, None, None, None, 0, 0))
    each = value(alone, *params.values(), x[:, None], y[:, None])
    return dict(zip(params, each, strict=True)), dict(zip(params, truth, strict=True))


@deferred
def batch(name: str) -> Iterator[Case]:
    """The gradient by each example alone; the truth is that of the mean over the batch."""
    for sizes in NETWORKS:
        each, truth = _examples(**sizes)
        yield Case(at(sizes), {"each": each[name]}, truth[name])


CLAIMS = claims(__name__)
