"""Networks composed of the operations, each a set of pure functions: init, logits, loss."""
