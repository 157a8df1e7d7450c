"""D0, "Backpropagation: From Intuition to FLOPs": the scalar example and the two-layer linear network."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refgrad import cost
from refgrad.claims._ledger import Case
from refgrad.claims._oracle import at, at_sizes, gradients, normal
from refgrad.claims._rows import claims
from refgrad.models import linear_network
from refgrad.ops import operations

OPS = operations("derived")
SIZES = ({"B": 4, "D": 6, "C": 3}, {"B": 7, "D": 5, "C": 2}, {"B": 2, "D": 9, "C": 8})


@at_sizes(SIZES)
def gradient(B: int, D: int, C: int) -> tuple[dict[str, Any], dict[str, Any]]:
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
def flops(**sizes: int) -> tuple[dict[str, Any], dict[str, int]]:
    """The FLOPs of the products of each pass in `_counted`; a statement is about those forward and without ∂X."""
    products = {name: count.matmul for name, count in _counted(**sizes).items()}
    return {"forward": products["forward"], "backward": products["W1"]}, products


def _scalar_values() -> dict[str, np.ndarray]:
    return {"x": np.array([1.0, 2.0, 3.0]), "w": np.array([1.0, 1.0, 1.0])}


def _scalar_loss(x: Any, w: Any) -> Any:
    """½(x·w − 5)², its product by the derived rule."""
    return 0.5 * (OPS.matmul(x[None], w[:, None])[0, 0] - 5.0) ** 2


def scalar_gradient() -> Iterator[Case]:
    """The gradient of the scalar loss by w, at D0's numbers."""
    values = _scalar_values()
    yield Case("", values, gradients(_scalar_loss, *values.values())[1])


def scalar_accumulated() -> Iterator[Case]:
    """The number of arrays that a gradient by w alone returns."""
    x, w = _scalar_values().values()
    asked = jax.grad(_scalar_loss, argnums=1)(x, w)
    yield Case("", {"arrays_returned": len(jax.tree.leaves(asked)), "weights": 1})


def twice() -> Iterator[Case]:
    """Backward against forward FLOPs: the products with ∂X and without, and all FLOPs with the loss."""
    for sizes in SIZES:
        passes = _counted(**sizes)
        for name, upto, loss in (("with ∂X", "X", 0), ("without ∂X", "W1", 0), ("with ∂X and the loss", "X", 1)):
            forward, backward = (passes[p].flops if loss else passes[p].matmul for p in ("forward", upto))
            values = {"forward": forward, "backward": backward, "dX": int(upto == "X"), "loss": loss}
            yield Case(f"{at(sizes)} {name}", values)


CLAIMS = claims(__name__)
