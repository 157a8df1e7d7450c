"""D3, "Neural network and backpropagation": networks, gates, losses and the matrix product, one file each."""

from refgrad.claims.d3 import activations, gates, losses, matrices, networks

CLAIMS = (*networks.CLAIMS, *activations.CLAIMS, *gates.CLAIMS, *losses.CLAIMS, *matrices.CLAIMS)
