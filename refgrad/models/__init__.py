"""Networks composed of the operations, each a set of pure functions: init, logits, loss."""

import importlib
import sys
from typing import Any

from refgrad._renamed import renamed

__all__ = [
    "binary_classifier",
    "cached",
    "gpt2",
    "gpt2_costs",
    "linear_classifier",
    "linear_network",
    "mlp",
    "networks",
    "omissions",
    "one_hidden_layer",
    "ratios",
    "rnn",
]


def __getattr__(name: str) -> Any:
    if name == "tally":
        importlib.import_module("refgrad.models.gpt2_costs")
    return renamed(sys.modules[__name__], {"tally": "gpt2_costs"}, name)
