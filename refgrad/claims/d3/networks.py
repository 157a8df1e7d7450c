"""D3's networks: one to three layers (D3.1, D3.4), the ring (D3.2), the 20 lines (D3.5), the absorbed bias (D3.15)."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refgrad.claims._ledger import Case, deferred
from refgrad.claims._oracle import at, at_sizes, gradients, normal, value, weighted
from refgrad.claims._rows import claims
from refgrad.ops import operations

OPS = operations("derived")
SIZES = ({"N": 5, "D": 3, "H": 4, "C": 2}, {"N": 9, "D": 2, "H": 6, "C": 3}, {"N": 20, "D": 4, "H": 3, "C": 5})
DEEP = ((3, 4, 4, 1), (5, 2, 6, 3), (2, 7, 3, 4))  # D3's own widths first
BOUNDS = {"nothing": 1e-9, "clearly": 0.05}  # parts of the output that no linear map explains
LISTING = ({"N": 64, "D": 1000, "H": 100, "C": 10}, {"N": 5, "D": 7, "H": 4, "C": 3}, {"N": 8, "D": 2, "H": 9, "C": 4})
STEPS, RATE = 25, 1e-4
NOTHING = "no error"
DIRECTIONS = 8  # hidden units of the network that separates the ring from its middle


@deferred
def layers(n: int) -> Iterator[Case]:
    """Cases whose truth is the output of n layers with ReLU between them; 0 for two without it."""
    for sizes in SIZES:
        N, D, H, C = sizes.values()
        shapes = {1: ((C, D),), 3: ((H, D), (D, H), (C, D))}.get(n, ((H, D), (C, H)))
        X, weights = normal(0, N, D), [normal(1 + i, *shape) for i, shape in enumerate(shapes)]

        def network(*weights: Any, X: Any = X) -> Any:
            x = OPS.matmul(X, weights[0].T)
            for W in weights[1:]:
                x = OPS.matmul(OPS.relu(x) if n else x, W.T)
            return x

        gradients(weighted(network, normal(9, N, C)), *weights)  # the rules agree with autodiff
        names = {f"W{i + 1}": W for i, W in enumerate(weights)}
        yield Case(at(sizes), {"X": X, **names}, value(network, *weights))


def collapse() -> Iterator[Case]:
    """Share of two layers' output that the best single linear map leaves unexplained, without and with ReLU."""
    for seed in range(3):
        X, W1, W2 = normal(seed, 200, 3), normal(seed + 10, 6, 3), normal(seed + 20, 4, 6)
        shares = {}
        for name, between in (("linear", lambda h: h), ("relu", OPS.relu)):
            out = value(lambda X, W1, W2, f=between: OPS.matmul(f(OPS.matmul(X, W1.T)), W2.T), X, W1, W2)
            fit = np.linalg.lstsq(X, out, rcond=None)[0]
            shares[name] = float(np.linalg.norm(out - X @ fit) / np.linalg.norm(out))
        yield Case(f"draw {seed}", {**BOUNDS, **shares})


def three_sigmoid() -> Iterator[Case]:
    """The output of D3's three layers with sigmoids, at several widths."""
    for widths in DEEP:
        x = normal(0, widths[0], 1)
        values: dict[str, Any] = {"x": x}
        for i in range(3):
            values[f"W{i + 1}"] = normal(i + 1, widths[i + 1], widths[i])
            values[f"b{i + 1}"] = normal(i + 4, widths[i + 1], 1)

        def network(row: Any, *leaves: Any) -> Any:
            W1, b1, W2, b2, W3, b3 = leaves
            h1 = OPS.sigmoid(OPS.dense(row, W1, b1[:, 0]))
            h2 = OPS.sigmoid(OPS.dense(h1, W2, b2[:, 0]))
            return OPS.dense(h2, W3, b3[:, 0])

        leaves = list(values.values())[1:]
        gradients(weighted(network, normal(8, 1, widths[-1])), x.T, *leaves)
        yield Case("→".join(map(str, widths)), values, value(network, x.T, *leaves).T)


def _ring(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Red points (40, 2) in the middle and blue ones (60, 2) around them."""
    rng = np.random.default_rng(seed)
    radius = np.concatenate([rng.uniform(0, 1, 40), rng.uniform(2, 3, 60)])
    angle = np.concatenate([rng.uniform(0, 2 * np.pi, 40), np.linspace(0, 2 * np.pi, 60, endpoint=False)])
    points = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    return points[:40], points[40:]


def not_separable() -> Iterator[Case]:
    """A red point as a mean of three blue ones with positive weights: no line has it on the other side."""
    for seed in range(3):
        red, blue = _ring(seed)
        corners = np.concatenate([blue[[0, 20, 40]].T, np.ones((1, 3))])
        weights = np.linalg.solve(corners, np.append(red[0], 1.0))
        gap = float(np.linalg.norm(weights @ blue[[0, 20, 40]] - red[0]))
        yield Case(f"draw {seed}", {"smallest_weight": float(weights.min()), "gap": gap, **BOUNDS})


def polar() -> Iterator[Case]:
    """The largest radius of a red point, the smallest of a blue one."""
    for seed in range(3):
        red, blue = (np.linalg.norm(points, axis=1) for points in _ring(seed))
        yield Case(f"draw {seed}", {"largest_r_red": float(red.max()), "smallest_r_blue": float(blue.min())})


def two_layers_separate() -> Iterator[Case]:
    """max(0, W₁ x) with one unit in each of eight directions, added up: nearly a multiple of the radius."""
    angles = np.arange(DIRECTIONS) * 2 * np.pi / DIRECTIONS
    W1 = np.stack([np.cos(angles), np.sin(angles)], 1)
    W2 = np.ones((1, DIRECTIONS))
    for seed in range(3):
        red, blue = (value(lambda p: OPS.matmul(OPS.relu(OPS.matmul(p, W1.T)), W2.T), p) for p in _ring(seed))
        yield Case(f"draw {seed}", {"largest_score_red": float(red.max()), "smallest_score_blue": float(blue.min())})


def _listing_loss(w1: Any, w2: Any, x: Any, y: Any) -> Any:
    """The network of the 20 lines, from the project's operations."""
    return OPS.squared_error_sum(OPS.matmul(OPS.sigmoid(OPS.matmul(x, w1)), w2), y)


@at_sizes(LISTING)
def listing(N: int, D: int, H: int, C: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The listing's arrays and its losses before and after `STEPS` steps; the gradients."""
    x, y, w1, w2 = normal(0, N, D), normal(1, N, C), normal(2, D, H), normal(3, H, C)
    dw1, dw2 = gradients(lambda w1, w2: _listing_loss(w1, w2, x, y), w1, w2)

    def step(w: Any, _: None) -> Any:
        loss, dw = jax.value_and_grad(lambda w: _listing_loss(w[0], w[1], x, y))(w)
        return jax.tree.map(lambda w, dw: w - RATE * dw, w, dw), loss

    losses = np.asarray(jax.lax.scan(step, (jnp.asarray(w1), jnp.asarray(w2)), None, length=STEPS)[1])
    values = {"x": x, "y": y, "w1": w1, "w2": w2, "loss_first": losses[0], "loss_last": losses[-1]}
    return values, {"w1": dw1, "w2": dw2}


def imports() -> Iterator[Case]:
    """Outcome of the listing's call of `randn` where only one name was imported from numpy.random."""
    for sizes in LISTING:
        said = {}
        for imported in ("rand", "randn"):
            try:
                eval("randn(N, D)", {**sizes, imported: getattr(np.random.RandomState(0), imported)})
                said[f"error_with_{imported}"] = NOTHING
            except NameError as error:
                said[f"error_with_{imported}"] = str(error)
        yield Case(at(sizes), {**said, "nothing": NOTHING})


@at_sizes(SIZES)
def absorbed(N: int, D: int, H: int, C: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A dense layer with its bias absorbed, and the gradients of that; dense's own value ("y") and gradients."""
    x, W, b, dy = normal(0, N, D), normal(1, H, D), normal(2, H), normal(3, N, H)
    dx, dW, db = gradients(weighted(OPS.dense, dy), x, W, b)
    one, Wb = np.concatenate([x, np.ones((N, 1))], 1), np.concatenate([W, b[:, None]], 1)
    d_one, dWb = gradients(weighted(lambda x, W: OPS.matmul(x, W.T), dy), one, Wb)
    truth = {"y": value(OPS.dense, x, W, b), "x": dx, "W": dW, "b": db}
    return {"x": x, "W": W, "b": b, "dWb": dWb, "d_one": d_one}, truth


CLAIMS = claims(__name__)
