"""D3, "Neural network and backpropagation": networks, gates, losses and the matrix product, one file each."""

from refgrad.claims.d3 import activations, capacity, gates, losses, matrices, networks

CLAIMS = (*networks.CLAIMS, *capacity.CLAIMS, *activations.CLAIMS, *gates.CLAIMS, *losses.CLAIMS, *matrices.CLAIMS)
