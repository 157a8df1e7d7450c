"""D4, "An Exercise in Backpropagation": the binary classifier, its broadcast bias, and the batched linear layer."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from refgrad.claims._ledger import Case, Check, Claim
from refgrad.claims._oracle import at_sizes, gradients, normal, value, weighted
from refgrad.ops import operations

OPS = operations("derived")
# D4's own network has 2 inputs and 3 hidden units; the others make sure that nothing rests on that.
SIZES = ({"N": 5, "D": 2, "H": 3}, {"N": 4, "D": 6, "H": 7}, {"N": 9, "D": 3, "H": 4})
PRODUCTS = ({"N": 5, "Dx": 3, "Dy": 4}, {"N": 2, "Dx": 6, "Dy": 3}, {"N": 7, "Dx": 4, "Dy": 2})
CLASSIFIER = ("matmul", "relu", "sigmoid", "binary_cross_entropy")
BOUNDS = {"saturated": 1000.0}  # a logit whose sigmoid is 0 or 1 in every format


def _from_z(z: Any, y: Any) -> Any:
    """D4's loss as a function of z (N, 1)."""
    return OPS.binary_cross_entropy(OPS.sigmoid(z), y)


@at_sizes(SIZES)
def _classifier(N: int, D: int, H: int) -> tuple[dict[str, Any], dict[str, Any]]:
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


def _at_the_edge() -> Iterator[Case]:
    """The loss as printed, with probabilities inside (0, 1) and with some that have reached their label."""
    for case in _classifier("p")():
        p, y = case.values["p"], case.values["y"]
        yield Case(f"{case.at}, p inside", {"p": p, "y": y}, float(value(OPS.binary_cross_entropy, p, y)))
        reached = np.where(np.arange(p.size)[:, None] == 0, y.astype(float), p)
        yield Case(f"{case.at}, p₁ = y₁", {"p": reached, "y": y}, float(value(OPS.binary_cross_entropy, reached, y)))


def _wrong_for_certain() -> Iterator[Case]:
    """The gradient by a saturated logit whose label says the opposite: through p, and from the logit itself."""
    for sign, label in ((1.0, 0), (-1.0, 1)):
        z, y = np.array([sign * BOUNDS["saturated"]]), np.array([label], np.int32)
        (logit,) = gradients(lambda z, y=y: OPS.binary_cross_entropy_with_logits(z, y), z)
        for logits, where, dz in ((0, "through p", jax.grad(_from_z)(z, y)), (1, "from the logit", logit)):
            yield Case(f"z={z[0]:g}, {where}", {"gradient": float(dz[0]), "right": sign, "logits": logits})


@at_sizes(PRODUCTS)
def _product(N: int, Dx: int, Dy: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Y = X W with an upstream dY; the gradients ("X", "W") and both Jacobians ("JX", "JW")."""
    X, W, dY = normal(0, N, Dx), normal(1, Dx, Dy), normal(2, N, Dy)
    dX, dW = gradients(weighted(OPS.matmul, dY), X, W)
    JX, JW = value(jax.jacobian(OPS.matmul, (0, 1)), X, W)
    return {"X": X, "W": W, "dY": dY}, {"X": dX, "W": dW, "JX": JX, "JW": JW}


CLAIMS = (
    Claim(
        "D4.1",
        "Gradient Calculations",
        "f(x) = σ(max(0, x w₁) w₂ + b) under the mean binary cross-entropy: the chain rule gives the gradients of w₁, "
        "w₂ and b.",
        "autodiff and the derived rules, at D4's 2 inputs and 3 hidden units and at two other sizes",
        (
            Check("∂ℓ/∂w₂", "h.T @ dz", _classifier("w2")),
            Check("∂ℓ/∂b", "sum(dz, 0)", _classifier("b")),
            Check("∂ℓ/∂w₁", "X.T @ (dz @ w2.T * (X @ w1 > 0))", _classifier("w1")),
        ),
        see=("D4.2", "D4.3", "D4.4"),
        more="refgrad verify --op binary_cross_entropy",
        ops=CLASSIFIER,
    ),
    Claim(
        "D4.2",
        "Gradient Calculations",
        "The gradient of z is that of y_pred times y_pred (1 − y_pred), element by element, and ℓᵢ = −(y log p + "
        "(1 − y) log(1 − p)).",
        "autodiff and the derived rules; the printed loss where p reaches its label; the gradient at a logit of 1000",
        (
            Check("∂ℓ/∂y_pred", "-(y / p - (1 - y) / (1 - p)) / N", _classifier("p")),
            Check("∂ℓ/∂z", "dp * p * (1 - p)", _classifier("z")),
            Check("both together", "(p - y) / N", _classifier("z")),
            Check(
                "the loss as printed",
                "mean(-(y * log(p) + (1 - y) * log(1 - p)))",
                _at_the_edge,
                when="min(p) > 0 and max(p) < 1",
                condition="every p lies strictly between 0 and 1: at its label the printed sum has 0 · log 0",
            ),
            Check(
                "the gradient reaches a confident mistake",
                "gradient == right",
                _wrong_for_certain,
                when="logits == 1",
                condition="the loss is taken from the logits; through p = 1, p (1 − p) is 0 and nothing sound is left",
            ),
        ),
        see=("D1.7",),
        more="refgrad verify --op binary_cross_entropy_with_logits",
        ops=("sigmoid", "binary_cross_entropy", "binary_cross_entropy_with_logits"),
    ),
    Claim(
        "D4.3",
        "Gradient Calculations, the bias",
        "The broadcast bias can be written z = h w₂ + 1ᵀ b with 1 in ℝᴺ, so that ∂z/∂b = 1ᵀ; its gradient is a sum.",
        "the printed forms with 1 as a column of N ones, against the forward pass and its Jacobian",
        (
            Check("z", "h @ w2 + ones(N, 1).T * b", _classifier("forward"), corrected="h @ w2 + ones(N, 1) * b"),
            Check("∂z/∂b", "ones(N, 1).T", _classifier("dz_db"), corrected="ones(N, 1)"),
            Check("∂ℓ/∂b is the sum over the batch", "ones(N, 1).T @ dz @ ones(1)", _classifier("b")),
        ),
        see=("D1.5", "D3.15"),
        more="refgrad verify --op dense",
        ops=CLASSIFIER,
    ),
    Claim(
        "D4.4",
        "Appendix, Batched Linear Gradients",
        "For Y = X W, ∂Y/∂W_kj is X's column k in column j and ∂Y/∂X_ik is W's row k in row i, so that ∂ℓ/∂W = "
        "Xᵀ ∂ℓ/∂Y and ∂ℓ/∂X = ∂ℓ/∂Y Wᵀ.",
        "autodiff, the derived rule of matmul, and both Jacobians in full",
        (
            Check("∂Y/∂W", "einsum('ik,jJ->ijkJ', X, eye(Dy))", _product("JW")),
            Check("∂Y/∂X", "einsum('kj,iI->ijIk', W, eye(N))", _product("JX")),
            Check("∂ℓ/∂W", "X.T @ dY", _product("W")),
            Check("∂ℓ/∂X", "dY @ W.T", _product("X")),
        ),
        see=("D0.6", "D3.14"),
        more="refgrad verify --op matmul",
        ops=("matmul",),
    ),
)
