"""D3's losses: the multiclass hinge (D3.8), the L2 penalty (D3.9), and both in one graph (D3.16)."""

from typing import Any

import numpy as np

from refgrad.claims._ledger import Check, Claim
from refgrad.claims._oracle import at_sizes, gradients, normal, value
from refgrad.ops import operations

OPS = operations("derived")
SIZES = ({"N": 5, "D": 3, "C": 4}, {"N": 2, "D": 6, "C": 3}, {"N": 7, "D": 4, "C": 9})
MARGIN, STRENGTH, HIDDEN = 1.0, 0.05, 6


def _labels(N: int, C: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, C, N).astype(np.int32)


@at_sizes(SIZES)
def _linear(N: int, D: int, C: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """s = X Wᵀ: its arrays, losses and gradients."""
    X, W, y = normal(0, N, D), normal(1, C, D), _labels(N, C)

    def hinge(W: Any) -> Any:
        return OPS.hinge(OPS.matmul(X, W.T), y, MARGIN)

    def penalty(W: Any) -> Any:
        return OPS.l2_penalty(W, STRENGTH)

    def total(W: Any) -> Any:
        return OPS.add(hinge(W), penalty(W))

    s = X @ W.T
    (ds,) = gradients(lambda s: OPS.hinge(s, y, MARGIN), s)
    target = np.arange(C)[None, :] == y[:, None]
    values = {"X": X, "W": W, "Wy": W[y], "s": s, "s_y": s[np.arange(N), y][:, None], "target": target}
    values |= {"ds": ds, "lam": STRENGTH, "path_hinge": gradients(hinge, W)[0], "path_L2": gradients(penalty, W)[0]}
    return values, {"hinge": value(hinge, W), "total": value(total, W), "s": ds, "W": gradients(total, W)[0]}


@at_sizes(SIZES)
def _two_layers(N: int, D: int, C: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """W₂ max(0, W₁ x) with both penalties: values hold the data's own loss and gradients, truth those of the total."""
    X, W1, W2, y = normal(0, N, D), normal(3, HIDDEN, D), normal(4, C, HIDDEN), _labels(N, C)

    def data(W1: Any, W2: Any) -> Any:
        return OPS.hinge(OPS.matmul(OPS.relu(OPS.matmul(X, W1.T)), W2.T), y, MARGIN)

    def total(W1: Any, W2: Any) -> Any:
        return data(W1, W2) + OPS.l2_penalty(W1, STRENGTH) + OPS.l2_penalty(W2, STRENGTH)

    known = {"W1": W1, "W2": W2, "lam": STRENGTH, "mean_loss": float(value(data, W1, W2))}
    known |= dict(zip(("data1", "data2"), gradients(data, W1, W2), strict=True))
    truth = dict(zip(("W1", "W2"), gradients(total, W1, W2), strict=True))
    return known, {**truth, "loss": value(total, W1, W2)}


EXPANDED = "mean(sum(where(target, 0, maximum(0, X @ W.T {} sum(X * Wy, 1, True) + 1)), 1)) + lam * sum(W**2)"
ACTIVE = "where(target, 0, s - s_y + 1 > 0)"

CLAIMS = (
    Claim(
        "D3.8",
        "How to compute gradients?",
        "The hinge loss is Σ_{j≠y} max(0, s_j − s_y + 1); expanded for s = W x it is printed with W_j·x + W_y·x + 1.",
        "the printed sums, and autodiff and the derived rule of hinge, with margin 1",
        (
            Check("the loss in s", "mean(sum(where(target, 0, maximum(0, s - s_y + 1)), 1))", _linear("hinge")),
            Check("the loss in W", EXPANDED.format("+"), _linear("total"), corrected=EXPANDED.format("-")),
            Check(
                "its gradient by s (derived here)",
                f"({ACTIVE} - where(target, sum({ACTIVE}, 1, True), 0)) / N",
                _linear("s"),
            ),
        ),
        see=("D3.16",),
        more="refgrad verify --op hinge",
        ops=("hinge", "l2_penalty"),
    ),
    Claim(
        "D3.9",
        "How to compute gradients?",
        "R(W) = Σ W² is added for each weight matrix: the total is the data's mean loss plus λ R(W₁) + λ R(W₂).",
        "autodiff and the derived rules of the two-layer network with hinge and both penalties, λ = 0.05",
        (
            Check("L", "mean_loss + lam * sum(W1**2) + lam * sum(W2**2)", _two_layers("loss")),
            Check("∂L/∂W₁ (derived here)", "data1 + 2 * lam * W1", _two_layers("W1")),
            Check("∂L/∂W₂ (derived here)", "data2 + 2 * lam * W2", _two_layers("W2")),
        ),
        see=("D3.10",),
        more="refgrad verify --op l2_penalty",
        ops=("l2_penalty", "hinge", "relu", "matmul"),
    ),
    Claim(
        "D3.16",
        "How to compute gradients?, the computational graph",
        "W feeds the scores and the penalty, which meet at a sum: its gradient is the sum of what comes along both.",
        "autodiff and the derived rules of the whole graph and of each path alone, λ = 0.05",
        (
            Check("∂L/∂W", "path_hinge + path_L2", _linear("W")),
            Check("both paths written out", "ds.T @ X + 2 * lam * W", _linear("W")),
        ),
        see=("D3.6", "D3.8", "D3.9"),
        more="refgrad verify --op hinge",
        ops=("hinge", "l2_penalty", "matmul", "add"),
    ),
)
