"""D4, "An Exercise in Backpropagation": the binary classifier, its broadcast bias, and the batched linear layer."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from refgrad.claims._ledger import Case
from refgrad.claims._oracle import at_sizes, gradients, normal, value, weighted
from refgrad.claims._rows import claims
from refgrad.ops import operations

OPS = operations("derived")
# D4's own network has 2 inputs and 3 hidden units; the others make sure that nothing rests on that.
SIZES = ({"N": 5, "D": 2, "H": 3}, {"N": 4, "D": 6, "H": 7}, {"N": 9, "D": 3, "H": 4})
PRODUCTS = ({"N": 5, "Dx": 3, "Dy": 4}, {"N": 2, "Dx": 6, "Dy": 3}, {"N": 7, "Dx": 4, "Dy": 2})
BOUNDS = {"saturated": 1000.0}  # a logit whose sigmoid is 0 or 1 in every format


def _from_z(z: Any, y: Any) -> Any:
    """D4's loss as a function of z (N, 1)."""
    return OPS.binary_cross_entropy(OPS.sigmoid(z), y)


@at_sizes(SIZES)
def classifier(N: int, D: int, H: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The classifier's arrays; the gradient of each, z itself ("forward"), and ∂z/∂b entry by entry."""
    X, w1, w2, b = normal(0, N, D), normal(1, D, H), normal(2, H, 1), normal(3, 1)
    y = (normal(4, N, 1) > 0).astype(np.int32)

    def loss(w1: Any, w2: Any, b: Any) -> Any:
        z = OPS.matmul(OPS.relu(OPS.matmul(X, w1)), w2)
        return _from_z(z + b.reshape(1, 1), y)

    dw1, dw2, db = gradients(loss, w1, w2, b)
    h = np.maximum(X @ w1, 0)
    z = h @ w2 + b
    p = 1 / (1 + np.exp(-z))
    (dz,) = gradients(lambda z: _from_z(z, y), z)
    (dp,) = gradients(lambda p: OPS.binary_cross_entropy(p, y), p)
    jacobian = value(jax.jacobian(lambda b: h @ w2 + b.reshape(1, 1)), b)[..., 0]
    values = {"X": X, "w1": w1, "w2": w2, "b": b, "y": y, "h": h, "z": z, "p": p, "dz": dz, "dp": dp}
    return values, {"w1": dw1, "w2": dw2, "b": db, "z": dz, "p": dp, "forward": z, "dz_db": jacobian}


def at_the_edge() -> Iterator[Case]:
    """The loss as printed, with probabilities inside (0, 1) and with some that have reached their label."""
    for case in classifier("p")():
        p, y = case.values["p"], case.values["y"]
        yield Case(f"{case.at}, p inside", {"p": p, "y": y}, float(value(OPS.binary_cross_entropy, p, y)))
        reached = np.where(np.arange(p.size)[:, None] == 0, y.astype(float), p)
        yield Case(f"{case.at}, p₁ = y₁", {"p": reached, "y": y}, float(value(OPS.binary_cross_entropy, reached, y)))


def wrong_for_certain() -> Iterator[Case]:
    """The gradient by a saturated logit whose label says the opposite: through p, and from the logit itself."""
    for sign, label in ((1.0, 0), (-1.0, 1)):
        z, y = np.array([sign * BOUNDS["saturated"]]), np.array([label], np.int32)
        (logit,) = gradients(lambda z, y=y: OPS.binary_cross_entropy_with_logits(z, y), z)
        for logits, where, dz in ((0, "through p", jax.grad(_from_z)(z, y)), (1, "from the logit", logit)):
            yield Case(f"z={z[0]:g}, {where}", {"gradient": float(dz[0]), "right": sign, "logits": logits})


@at_sizes(PRODUCTS)
def product(N: int, Dx: int, Dy: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Y = X W with an upstream dY; the gradients ("X", "W") and both Jacobians ("JX", "JW")."""
    X, W, dY = normal(0, N, Dx), normal(1, Dx, Dy), normal(2, N, Dy)
    dX, dW = gradients(weighted(OPS.matmul, dY), X, W)
    JX, JW = value(jax.jacobian(OPS.matmul, (0, 1)), X, W)
    return {"X": X, "W": W, "dY": dY}, {"X": dX, "W": dW, "JX": JX, "JW": JW}


CLAIMS = claims(__name__)
