"""Networks composed of the operations, each a set of pure functions: init, logits, loss."""

__all__ = [
    "binary_classifier",
    "cached",
    "gpt2",
    "linear_classifier",
    "linear_network",
    "mlp",
    "networks",
    "omissions",
    "one_hidden_layer",
    "ratios",
    "rnn",
    "tally",
]
