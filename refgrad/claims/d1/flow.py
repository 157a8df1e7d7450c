"""D1 on gradient flow: derivatives multiplied through depth (D1.12), six remedies (D1.13), and through time (D1.21)."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refgrad.claims._ledger import Case, deferred
from refgrad.claims._oracle import at_sizes, gradients, normal, value, weighted
from refgrad.claims._rows import claims
from refgrad.jaxpr.scaffold import scaffold
from refgrad.ops import operations

OPS = operations("derived")
# A gradient has vanished below a hundredth of what was sent and exploded above a hundred times it. A remedy helps
# where it leaves the gradient at most half as many powers of ten away from what was sent; clipping, within its limit.
BOUNDS = {"vanished": 0.01, "exploded": 100.0, "half": 0.5, "limit": 1.0}
WIDTH, BATCH, DEPTH = 24, 16, 40
DISTANCES = (10, 20, 40)
FACTORS = (0.8, 1.0, 1.25)
EPS = 1e-5


@cache
def _orthogonal(seed: int, n: int) -> Any:
    """An orthogonal matrix (n, n): every derivative through it has the length that it came with."""
    return np.linalg.qr(normal(seed, n, n))[0]


@cache
def linear_stack() -> tuple[Case, ...]:
    """The gradient's norm over the one sent, through linear layers whose every derivative is one factor."""
    found = []
    for depth in DISTANCES:
        ct = normal(1, BATCH, WIDTH)

        def network(x: Any, W: Any, depth: int = depth) -> Any:
            return jax.lax.scan(lambda x, _: (OPS.matmul(x, W), None), x, None, length=depth)[0]

        def every(x: Any, W: Any, network: Any = network, ct: Any = ct) -> Any:
            return sum(weighted(network, ct)(x[i], W[i]) for i in range(len(FACTORS)))

        W = np.stack([factor * _orthogonal(0, WIDTH) for factor in FACTORS])
        dx, _ = gradients(every, normal(2, len(FACTORS), BATCH, WIDTH), W)
        for factor, sent_back in zip(FACTORS, dx, strict=True):
            ratio = float(np.linalg.norm(sent_back) / np.linalg.norm(ct))
            values = {"factor": factor, "depth": depth, "ratio": ratio, **BOUNDS}
            found.append(Case(f"{depth} layers of {factor}", values, np.asarray(ratio)))
    return tuple(found)


def deep_enough() -> Iterator[Case]:
    """The stack at the largest depth alone."""
    for case in linear_stack():
        if case.values["depth"] == max(DISTANCES):
            yield Case(case.at, case.values)


def _sigmoid(x: Any, W: Any) -> Any:
    return OPS.sigmoid(OPS.matmul(x, W))


def _relu(x: Any, W: Any) -> Any:
    return OPS.relu(OPS.matmul(x, W))


def _residual(x: Any, W: Any) -> Any:
    return OPS.residual(x, _sigmoid(x, W))


def _normalised(norm: Any) -> Callable[[Any, Any], Any]:
    """ReLU after a normalisation with γ = 1 and β = 0."""

    def layer(x: Any, W: Any) -> Any:
        return OPS.relu(norm(OPS.matmul(x, W), jnp.ones(WIDTH, x.dtype), jnp.zeros(WIDTH, x.dtype), EPS))

    return layer


def _norms(layer: Callable[[Any, Any], Any], scale: float) -> Any:
    """Ratio of the gradient's norm 1 to DEPTH layers back to that at the end; weights normal of scale/√n.

    Nothing is added between the layers: `taps` are zeros, whose gradients are those of the layers' outputs.
    """
    weights = scale / WIDTH**0.5 * normal(3, DEPTH, WIDTH, WIDTH)
    x, ct = normal(4, BATCH, WIDTH), normal(5, BATCH, WIDTH)

    def loss(taps: Any) -> Any:
        def step(x: Any, at: Any) -> Any:
            W, tap = at
            return layer(x + tap, W), None

        return (jax.lax.scan(step, x, (weights, taps))[0] * ct).sum()

    taps = scaffold(jax.grad(loss))(np.zeros((DEPTH, BATCH, WIDTH)))
    return np.linalg.norm(taps, axis=(1, 2))[::-1] / np.linalg.norm(ct)


@cache
def _remedies() -> Mapping[str, tuple[Any, Any]]:
    """Remedy → the gradient's norms (by layers back) without it and with it."""
    return {
        "ReLU": (_norms(_sigmoid, 1.0), _norms(_relu, 1.0)),
        "residual": (_norms(_sigmoid, 1.0), _norms(_residual, 1.0)),
        "batch_norm": (_norms(_relu, 0.5), _norms(_normalised(OPS.batch_norm), 0.5)),
        "layer_norm": (_norms(_relu, 0.5), _norms(_normalised(OPS.layer_norm), 0.5)),
        "init": (_norms(_relu, 0.5), _norms(_relu, 2**0.5)),
    }


@deferred
def remedy(name: str) -> Iterator[Case]:
    """Norms without and with a remedy, 10, 20 and 40 layers back."""
    without, remedied = _remedies()[name]
    for back in DISTANCES:
        values = {"plain": float(without[back - 1]), "remedied": float(remedied[back - 1])}
        yield Case(f"{back} layers back", {**BOUNDS, **values})


def clipped() -> Iterator[Case]:
    """An exploding gradient's norm, before and after it is scaled down to the limit."""
    exploding = _norms(_relu, 3.0)
    for back in DISTANCES:
        norm = float(exploding[back - 1])
        clipped = norm * min(1.0, BOUNDS["limit"] / norm)
        yield Case(f"{back} layers back", {**BOUNDS, "norm": norm, "clipped": clipped})


TIMES = ({"s": 4, "i": 3, "h": 5}, {"s": 4, "i": 2, "h": 3}, {"s": 4, "i": 5, "h": 2})


@at_sizes(TIMES)
def recurrence(s: int, i: int, h: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Four steps in time: each one's Jacobian, and the gradients by the derived backpropagation through time."""
    args = normal(0, s, i), normal(1, h), normal(2, i, h), normal(3, h, h), normal(4, h)
    _, h_0, _, W_h, _ = args
    ct = normal(5, h)
    pulled = gradients(weighted(lambda *args: OPS.rnn(*args)[-1], ct), *args)
    states = np.concatenate([h_0[None], value(OPS.rnn, *args)])
    J = {f"J{t}": np.diag(1 - states[t] ** 2) @ W_h.T for t in range(1, s + 1)}
    return {**J, "ct": ct, "states": states, "W_h": W_h}, {"h_0": pulled[1], "W_h": pulled[3]}


def through_time() -> Iterator[Case]:
    """The gradient of h₀ over the one sent to h_T, where tanh is nearly linear, by the recurrence's spectral radius."""
    s, i, h = 40, 2, 6
    ct, nothing = normal(2, h), np.zeros(h)

    def last(h_0: Any, W_h: Any) -> Any:
        return OPS.rnn(np.zeros((s, i)), h_0, normal(0, i, h), W_h, nothing)[-1] @ ct

    sent_back = scaffold(jax.grad(last))
    for radius in (0.5, 0.8, 1.0, 1.25, 1.5):
        ratio = float(np.linalg.norm(sent_back(nothing, radius * _orthogonal(1, h))) / np.linalg.norm(ct))
        yield Case(f"radius {radius}, {s} steps", {**BOUNDS, "radius": radius, "T": s, "ratio": ratio})


CLAIMS = claims(__name__)
