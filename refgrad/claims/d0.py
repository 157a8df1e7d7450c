"""D0, "Backpropagation: From Intuition to FLOPs": the scalar example and the two-layer linear network."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refgrad import cost
from refgrad.claims._ledger import Case, Check, Claim
from refgrad.claims._oracle import at, at_sizes, gradients, normal
from refgrad.models import linear_network
from refgrad.ops import operations

OPS = operations("derived")
SIZES = ({"B": 4, "D": 6, "C": 3}, {"B": 7, "D": 5, "C": 2}, {"B": 2, "D": 9, "C": 8})
NETWORK = ("matmul", "mean_square")
RAN = "autodiff and the derived rules of matmul and mean_square; the products of the traced backward pass"
MORE = "refgrad verify --op matmul"


@at_sizes(SIZES)
def _gradient(B: int, D: int, C: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The network's arrays, and the gradient of each."""
    X, W1, W2 = normal(0, B, D), normal(1, D, D), normal(2, D, C)
    H1, H2 = X @ W1, X @ W1 @ W2
    params, dX = gradients(linear_network.loss, {"W1": W1, "W2": W2}, X)
    dH1, _ = gradients(lambda h, w: OPS.mean_square(OPS.matmul(h, w)), H1, W2)
    (dH2,) = gradients(OPS.mean_square, H2)
    values = {"X": X, "W1": W1, "W2": W2, "H1": H1, "H2": H2, "dH1": dH1, "dH2": dH2}
    return values, {**params, "X": dX, "H1": dH1, "H2": dH2}


@cache
def _counted(B: int, D: int, C: int) -> dict[str, cost.Count]:
    """The traced passes: "forward", and the backward pass up to W2, to H1, to W1 (all that training needs) and to X."""
    h1, w2 = (jax.ShapeDtypeStruct(shape, jnp.float64) for shape in ((B, D), (D, C)))
    params, x = {"W1": jax.ShapeDtypeStruct((D, D), jnp.float64), "W2": w2}, h1
    known_h1, known_x = normal(0, B, D), normal(1, B, D)
    return {
        "forward": cost.count(linear_network.loss, params, x),
        "W2": cost.count_backward(lambda w2: OPS.mean_square(OPS.matmul(known_h1, w2)), w2),
        "H1": cost.count_backward(lambda h1, w2: OPS.mean_square(OPS.matmul(h1, w2)), h1, w2),
        "W1": cost.count_backward(lambda params: linear_network.loss(params, known_x), params),
        "X": cost.count_backward(linear_network.loss, params, x),
    }


@at_sizes(SIZES)
def _flops(**sizes: int) -> tuple[dict[str, Any], dict[str, int]]:
    """The FLOPs of the products of each pass in `_counted`; a statement is about those forward and without ∂X."""
    products = {name: count.matmul for name, count in _counted(**sizes).items()}
    return {"forward": products["forward"], "backward": products["W1"]}, products


def _scalar_values() -> dict[str, np.ndarray]:
    return {"x": np.array([1.0, 2.0, 3.0]), "w": np.array([1.0, 1.0, 1.0])}


def _scalar_loss(x: Any, w: Any) -> Any:
    """½(x·w − 5)², its product by the derived rule."""
    return 0.5 * (OPS.matmul(x[None], w[:, None])[0, 0] - 5.0) ** 2


def _scalar_gradient() -> Iterator[Case]:
    values = _scalar_values()
    yield Case("", values, gradients(_scalar_loss, *values.values())[1])


def _scalar_accumulated() -> Iterator[Case]:
    x, w = _scalar_values().values()
    asked = jax.grad(_scalar_loss, argnums=1)(x, w)
    yield Case("", {"arrays_returned": len(jax.tree.leaves(asked)), "weights": 1})


def _twice() -> Iterator[Case]:
    """Backward against forward FLOPs: the products with ∂X and without, and all FLOPs with the loss."""
    for sizes in SIZES:
        passes = _counted(**sizes)
        for name, upto, loss in (("with ∂X", "X", 0), ("without ∂X", "W1", 0), ("with ∂X and the loss", "X", 1)):
            forward, backward = (passes[p].flops if loss else passes[p].matmul for p in ("forward", upto))
            values = {"forward": forward, "backward": backward, "dX": int(upto == "X"), "loss": loss}
            yield Case(f"{at(sizes)} {name}", values)


CLAIMS = (
    Claim(
        "D0.1",
        "Introduction",
        "For y = ½(x·w − 5)² at x = [1, 2, 3], w = [1, 1, 1] the gradient of w is [1, 2, 3], and x accumulates none.",
        "autodiff and the derived rule of matmul, at these numbers",
        (
            Check("∂y/∂w", "(sum(x * w) - 5) * x", _scalar_gradient),
            Check("∂y/∂w as printed", "[1, 2, 3]", _scalar_gradient),
            Check("nothing is accumulated for x", "arrays_returned == weights", _scalar_accumulated),
        ),
        more=MORE,
        ops=("matmul",),
    ),
    Claim(
        "D0.2",
        "Forward pass",
        "H₁ = X W₁, H₂ = H₁ W₂ and loss = mean(H₂²) cost 2BD² + 2BDC FLOPs forward, the loss excluded.",
        "the products of the traced forward pass",
        (Check("FLOPs forward", "2 * B * D * D + 2 * B * D * C", _flops("forward")),),
        ops=NETWORK,
    ),
    Claim(
        "D0.3",
        "Gradient with respect to H₂",
        "In matrix form the gradient of H₂ is 2/(BC) times H₂.",
        "autodiff and the derived rule of mean_square",
        (Check("∂loss/∂H2", "2 / (B * C) * H2", _gradient("H2")),),
        see=("D0.8",),
        more="refgrad verify --op mean_square",
        ops=("mean_square",),
    ),
    Claim(
        "D0.4",
        "Gradient with respect to W₂",
        "The gradient of W₂ is H₁ᵀ times the gradient of H₂; it costs 2BDC, all of the backward pass so far.",
        RAN,
        (
            Check("∂loss/∂W2", "H1.T @ dH2", _gradient("W2")),
            Check("FLOPs so far", "2 * B * D * C", _flops("W2")),
        ),
        more=MORE,
        ops=NETWORK,
    ),
    Claim(
        "D0.5",
        "Gradient with respect to H₁",
        "The gradient of H₁ is that of H₂ times W₂ᵀ; the running total is 4BDC.",
        RAN,
        (
            Check("∂loss/∂H1", "dH2 @ W2.T", _gradient("H1")),
            Check("FLOPs so far", "4 * B * D * C", _flops("H1")),
        ),
        more=MORE,
        ops=NETWORK,
    ),
    Claim(
        "D0.6",
        "Gradient with respect to W₁",
        "The gradient of W₁ is the transposed gradient of H₁ times X, each entry a sum of D terms; the running total "
        "is 4BDC + 2BD².",
        RAN,
        (
            Check("∂loss/∂W1", "dH1.T @ X", _gradient("W1"), corrected="X.T @ dH1"),
            Check(
                "∂loss/∂w_ij, its sum over k to D",
                "einsum('kj,ki->ij', dH1[:D], X[:D])",
                _gradient("W1"),
                corrected="einsum('kj,ki->ij', dH1[:B], X[:B])",
            ),
            Check("FLOPs so far", "4 * B * D * C + 2 * B * D * D", _flops("W1")),
        ),
        see=("D1.5", "D3.14", "D4.4"),
        more=MORE,
        ops=NETWORK,
    ),
    Claim(
        "D0.7",
        "Gradient with respect to X",
        "The gradient of X is that of H₁ times W₁ᵀ; the total is 4BDC + 4BD², exactly twice the forward pass.",
        RAN,
        (
            Check("∂loss/∂X", "dH1 @ W1.T", _gradient("X")),
            Check("FLOPs", "4 * B * D * C + 4 * B * D * D", _flops("X")),
            Check(
                "exactly twice the forward",
                "backward == 2 * forward",
                _twice,
                when="dX == 1 and loss == 0",
                condition="∂X is computed and the loss's own FLOPs are left out; training alone needs no ∂X",
            ),
            Check(
                "backward over forward without ∂X (derived here)",
                "backward / forward == 2 - D / (D + C)",
                _flops(""),
            ),
        ),
        see=("D1.20", "D2.1"),
        more="refgrad cost; experiments/backward_over_forward.py",
        ops=NETWORK,
    ),
    Claim(
        "D0.8",
        "Gradient with respect to H₂",
        "Entry by entry, before the matrix form, the gradient of h_ij is (1/(BC)) · 2 · dh_ij.",
        "autodiff and the derived rule of mean_square, the symbol read as it is printed",
        (
            Check(
                "dloss/dh_ij = (1/BC) · 2 · dh_ij",
                "1 / (B * C) * 2 * dH2",
                _gradient("H2"),
                corrected="1 / (B * C) * 2 * H2",
            ),
        ),
        see=("D0.3",),
        more="refgrad verify --op mean_square",
        ops=("mean_square",),
    ),
)
