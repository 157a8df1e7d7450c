"""A training step that updates each layer in the backward pass, so that one layer's gradients are alive at a time.

`layers` splits the model into vjps with their backward rules, `per_leaf` splits an optax transformation by parameter.
`unrolled` is the step over a list of layers, `scanned` the step over stacked ones, for transformations that `layerwise`
proves to treat each layer alone. `clip` and `measures` are norms of gradients, for plain steps too.
"""

__all__ = ["clip", "layers", "layerwise", "measures", "per_leaf", "scanned", "unrolled"]
