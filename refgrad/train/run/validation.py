"""The loss on held-out text: its windows in order, in batches of equal size.

Each token is predicted from those before it in its window. Tokens at the end that do not fill a batch are left out; the
n-gram models are measured on the same tokens.
"""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from refgrad.models import gpt2
from refgrad.train.mesh import devices, model
from refgrad.train.settings import Train
from refgrad.train.update_in_backward.layers import cast

Place = Callable[[tuple[np.ndarray, np.ndarray]], tuple[jax.Array, jax.Array]]


class Validation:
    """The held-out batches, and their mean loss."""

    def __init__(self, config: gpt2.Config, train: Train, tokens: np.ndarray, mesh: Mesh | None = None) -> None:
        """Batch `tokens` (n,), for one device or a mesh. Raise ValueError if they do not fill one batch."""
        dtype = train.step_options().compute_dtype
        self._batch, self._sequence = train.batch // train.accumulate, train.sequence
        self._few = train.validation_batches
        size = self._batch * self._sequence
        self.batches = (len(tokens) - 1) // size
        if not self.batches:
            raise ValueError(
                f"{len(tokens):,} tokens of validation do not fill a batch of {self._batch} × {self._sequence}: "
                "give more text, or lower train.batch or train.sequence or raise data.validation"
            )
        self.tokens = tokens[: self.batches * size + 1]
        """The tokens that are predicted, after a first one that is not."""

        def loss(params: gpt2.Params, tokens: jax.Array, targets: jax.Array) -> jax.Array:
            if mesh:
                divided = model.loss(config, mesh, rules=train.rules, compute_dtype=dtype)
                return divided(params, tokens, targets)
            return gpt2.loss(cast(params, dtype), tokens, targets, config, train.rules, train.scan)

        self._loss = jax.jit(loss)
        self._part, self._parts = devices.rows(mesh)

    def few(self, params: gpt2.Params, place: Place) -> float:
        """Return the mean loss of `train.validation_batches` batches spread over the text, in nats per token."""
        count = min(self._few, self.batches)
        return self._mean(params, place, [n * self.batches // count for n in range(count)])

    def all(self, params: gpt2.Params, place: Place) -> float:
        """Return the mean loss of all batches, in nats per token."""
        return self._mean(params, place, range(self.batches))

    def _mean(self, params: gpt2.Params, place: Place, chosen) -> float:
        # one program at a time, finished on every device (digest.py)
        losses = (jax.block_until_ready(self._loss(params, *place(self._at(n)))) for n in chosen)
        return float(np.mean([float(loss) for loss in losses]))

    def _at(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        size, shape = self._batch * self._sequence, (self._batch, self._sequence)
        ids = self.tokens[n * size : (n + 1) * size + 1].astype(np.int32)
        rows = self._batch // self._parts
        part = slice(self._part * rows, (self._part + 1) * rows)
        return ids[:-1].reshape(shape)[part], ids[1:].reshape(shape)[part]
