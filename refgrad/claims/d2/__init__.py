"""D2, "Backpropagating through GPT-2": its gradients, its FLOPs, its tally, and the steps between."""

from refgrad.claims.d2 import contractions, elementwise, lookups, normalisations, required, steps, whole

PARTS = (contractions, normalisations, elementwise, lookups, whole, required, steps)
CLAIMS = tuple(claim for part in PARTS for claim in part.CLAIMS)
