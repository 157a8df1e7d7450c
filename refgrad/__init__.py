"""Hand-derived gradients in JAX, verified against autodiff and priced to the last FLOP."""
