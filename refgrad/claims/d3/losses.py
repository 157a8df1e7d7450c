"""D3's losses: the multiclass hinge (D3.8), the L2 penalty (D3.9), and both in one graph (D3.16)."""

from typing import Any

import numpy as np

from refgrad.claims._oracle import at_sizes, gradients, normal, value
from refgrad.claims._rows import claims
from refgrad.ops import operations

OPS = operations("derived")
SIZES = ({"N": 5, "D": 3, "C": 4}, {"N": 2, "D": 6, "C": 3}, {"N": 7, "D": 4, "C": 9})
MARGIN, STRENGTH, HIDDEN = 1.0, 0.05, 6


def _labels(N: int, C: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, C, N).astype(np.int32)


@at_sizes(SIZES)
def linear(N: int, D: int, C: int) -> tuple[dict[str, Any], dict[str, Any]]:
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
def two_layers(N: int, D: int, C: int) -> tuple[dict[str, Any], dict[str, Any]]:
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


CLAIMS = claims(__name__)
