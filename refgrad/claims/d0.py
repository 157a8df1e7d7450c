"""D0, "Backpropagation: From Intuition to FLOPs": the scalar example and the two-layer linear network."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refgrad import cost
from refgrad.claims._ledger import Case, Check, Claim
from refgrad.claims._oracle import gradients, normal
from refgrad.models import linear_network
from refgrad.ops import matmul, mean_square

SIZES = ({"B": 4, "D": 6, "C": 3}, {"B": 7, "D": 5, "C": 2}, {"B": 2, "D": 9, "C": 8})
NETWORK = ("matmul", "mean_square")


@cache
def _networks() -> tuple[tuple[str, dict[str, Any], dict[str, Any]], ...]:
    """For each size: where, the values that a formula may use, and the gradient of everything by the oracle."""
    found = []
    for sizes in SIZES:
        B, D, C = sizes.values()
        X, W1, W2 = normal(0, B, D), normal(1, D, D), normal(2, D, C)
        H1, H2 = X @ W1, X @ W1 @ W2
        params, dX = gradients(linear_network.loss, {"W1": W1, "W2": W2}, X)
        dH1, _ = gradients(lambda h, w: mean_square(matmul(h, w)), H1, W2)
        (dH2,) = gradients(mean_square, H2)
        truth = {"X": dX, "W1": params["W1"], "W2": params["W2"], "H1": dH1, "H2": dH2}
        values = {**sizes, "X": X, "W1": W1, "W2": W2, "H1": H1, "H2": H2, "dH1": dH1, "dH2": dH2}
        found.append((", ".join(f"{k}={v}" for k, v in sizes.items()), values, truth))
    return tuple(found)


def _gradient(name: str) -> Callable[[], Iterator[Case]]:
    """Cases whose truth is the gradient of `name`."""

    def cases() -> Iterator[Case]:
        for at, values, truth in _networks():
            yield Case(at, values, truth[name])

    return cases


def _flops(upto: str) -> Callable[[], Iterator[Case]]:
    """Cases whose truth is the FLOPs of products: "forward", or of the backward pass when it goes up to a gradient."""

    def cases() -> Iterator[Case]:
        for sizes in SIZES:
            at = ", ".join(f"{k}={v}" for k, v in sizes.items())
            yield Case(at, sizes, counted(**sizes)[upto])

    return cases


@cache
def counted(B: int, D: int, C: int) -> dict[str, int]:
    """FLOPs of the products in the traced passes: forward, and backward up to W2, H1, W1 (training) and X."""
    shape = jax.ShapeDtypeStruct
    h1, w2 = shape((B, D), jnp.float64), shape((D, C), jnp.float64)
    params, x = {"W1": shape((D, D), jnp.float64), "W2": w2}, h1
    fixed_h1, fixed_x = normal(0, B, D), normal(1, B, D)
    return {
        "forward": cost.count(linear_network.loss, params, x).matmul,
        "W2": cost.count_backward(lambda w2: mean_square(matmul(fixed_h1, w2)), w2).matmul,
        "H1": cost.count_backward(lambda h1, w2: mean_square(matmul(h1, w2)), h1, w2).matmul,
        "W1": cost.count_backward(lambda params: linear_network.loss(params, fixed_x), params).matmul,
        "X": cost.count_backward(linear_network.loss, params, x).matmul,
    }


CLAIMS = (
    Claim(
        "D0.4",
        "Gradient with respect to W₂",
        "The gradient of W₂ is H₁ᵀ times the gradient of H₂; it costs 2BDC, all of the backward pass so far.",
        "autodiff and the derived rules of matmul and mean_square; the products of the traced backward pass",
        (
            Check("∂loss/∂W2", "H1.T @ dH2", _gradient("W2")),
            Check("FLOPs so far", "2 * B * D * C", _flops("W2")),
        ),
        more="refgrad verify --op matmul",
        ops=NETWORK,
    ),
    Claim(
        "D0.6",
        "Gradient with respect to W₁",
        "The gradient of W₁ is the transposed gradient of H₁ times X, each entry a sum of D terms; the running total "
        "is 4BDC + 2BD².",
        "autodiff and the derived rules of the whole network; the products of the traced backward pass",
        (
            Check("∂loss/∂W1", "dH1.T @ X", _gradient("W1"), corrected="X.T @ dH1"),
            Check(
                "∂loss/∂w_ij, a sum to D",
                "einsum('kj,ki->ij', dH1[:D], X[:D])",
                _gradient("W1"),
                corrected="einsum('kj,ki->ij', dH1[:B], X[:B])",
            ),
            Check("FLOPs so far", "4 * B * D * C + 2 * B * D * D", _flops("W1")),
        ),
        more="refgrad verify --op matmul",
        ops=NETWORK,
    ),
)
