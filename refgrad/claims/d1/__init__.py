"""D1, "Backpropagation": single layers, their costs and memory, gradient flow through depth, training."""

from refgrad.claims.d1 import costs, flow, layers, memory, training

CLAIMS = (*layers.CLAIMS, *costs.CLAIMS, *memory.CLAIMS, *flow.CLAIMS, *training.CLAIMS)
