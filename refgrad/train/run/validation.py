"""The loss on held-out text: windows of it in their order, in batches of one size.

Each token is predicted from those before it in its window. What does not fill a batch at the end is left out; the
n-gram models are measured on the same tokens.
"""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from refgrad.models import gpt2
from refgrad.train.mesh import devices, model
from refgrad.train.settings import Settings
from refgrad.train.update_in_backward.layers import cast

Place = Callable[[tuple[np.ndarray, np.ndarray]], tuple[jax.Array, jax.Array]]


class Validation:
    """The held-out batches, and their mean loss."""

    def __init__(self, settings: Settings, tokens: np.ndarray, mesh: Mesh | None = None) -> None:
        """Of `tokens` (n,), on one device or a mesh. Raises ValueError where they do not fill one batch."""
        train, dtype = settings.train, settings.train.compute_dtype
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
        """Those that are predicted, and the first, which is not."""

        def loss(params: gpt2.Params, tokens: jax.Array, targets: jax.Array) -> jax.Array:
            if mesh:
                divided = model.loss(settings.model, mesh, rules=train.rules, compute_dtype=dtype)
                return divided(params, tokens, targets)
            return gpt2.loss(cast(params, dtype), tokens, targets, settings.model, train.rules, train.scan)

        self._loss = jax.jit(loss)
        self._part, self._parts = devices.rows(mesh)

    def few(self, params: gpt2.Params, place: Place) -> float:
        """The mean loss of `train.validation_batches` batches spread over the text, in nats a token."""
        count = min(self._few, self.batches)
        return self._mean(params, place, [n * self.batches // count for n in range(count)])

    def all(self, params: gpt2.Params, place: Place) -> float:
        """The mean loss of all batches, in nats a token."""
        return self._mean(params, place, range(self.batches))

    def _mean(self, params: gpt2.Params, place: Place, chosen) -> float:
        # one program at a time, ended on every device (digest.py)
        losses = (jax.block_until_ready(self._loss(params, *place(self._at(n)))) for n in chosen)
        return float(np.mean([float(loss) for loss in losses]))

    def _at(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        size, shape = self._batch * self._sequence, (self._batch, self._sequence)
        ids = self.tokens[n * size : (n + 1) * size + 1].astype(np.int32)
        rows = self._batch // self._parts
        mine = slice(self._part * rows, (self._part + 1) * rows)
        return ids[:-1].reshape(shape)[mine], ids[1:].reshape(shape)[mine]
