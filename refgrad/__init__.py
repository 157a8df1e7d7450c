"""Hand-derived gradients in JAX, verified against autodiff and priced to the last FLOP."""

__all__ = ["cost", "models", "ops", "verify", "weights"]
