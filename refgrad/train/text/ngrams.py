"""Bigram and trigram models, to compare a trained model with.

After a context h of the last order − 1 tokens, seen n(h) times and followed by T(h) different tokens,

    p(w | h) = (c(h, w) + T(h) p(w | h′)) / (n(h) + T(h)),   h′ = h without its first token; p(w | no context) over 1/V.

This is Witten and Bell's smoothing, interpolated. It has no parameter to choose, every token has a probability above 0,
and an unseen context falls back to the shorter one. (On the standard library's bytes the loss of Kneser and Ney's
smoothing is lower by 0.0001 nats for the bigram and 0.006 for the trigram.)

Sources: Witten & Bell, The zero-frequency problem (1991), method C; Chen & Goodman, An empirical study of smoothing
techniques for language modeling (1999), section 2.5.
"""

from collections.abc import Iterator

import numpy as np

LARGEST = 2**26
"""The most entries of a table; each takes 12 bytes while it is fitted, 4 afterwards."""
CHUNK = 2**22
"""Tokens that are processed at once."""


class NGram:
    """p(w | the order − 1 tokens before), fitted to `tokens`: an array (vocab_size,) * order, float32."""

    def __init__(self, tokens: np.ndarray, vocab_size: int, order: int) -> None:
        """Fit the model to `tokens` (n,).

        Raises ValueError for an order below 1, for fewer tokens than `order`, and for a table that would be too large,
        as for words instead of bytes.
        """
        if order < 1:
            raise ValueError(f"order is {order}, but must be at least 1: 2 for a bigram, 3 for a trigram")
        if vocab_size**order > LARGEST:
            raise ValueError(
                f"a table of {vocab_size} ids to the power {order} has more than {LARGEST:,} entries: fit it to bytes, "
                f"or take a lower order"
            )
        self.order, self.vocab_size = order, vocab_size
        self.probabilities = np.full((), 1 / vocab_size, np.float32)
        for n in range(1, order + 1):
            self.probabilities = _smoothed(self._counts(tokens, n), self.probabilities)

    def loss(self, tokens: np.ndarray) -> float:
        """Return −log p in nats, averaged over the tokens (n,) that have order − 1 before them.

        Raises ValueError if there are none, or an id is out of range.
        """
        table = self.probabilities.reshape(-1)
        total = sum(
            float(-np.log(table[places], dtype=np.float64).sum()) for places in self._places(tokens, self.order)
        )
        return total / (len(tokens) - self.order + 1)

    def sample(self, n: int, seed: int, start: int = 0) -> np.ndarray:
        """Draw `n` ids (n,) one after another, the first after `start`, such as the separator of documents."""
        ids = np.full(n + self.order - 1, start, np.int64)
        for place, lot in enumerate(np.random.default_rng(seed).random(n), self.order - 1):
            below = self.probabilities[tuple(ids[place - self.order + 1 : place])].cumsum(dtype=np.float64)
            ids[place] = np.searchsorted(below, lot * below[-1], side="right")
        return ids[self.order - 1 :]

    def _counts(self, tokens: np.ndarray, order: int) -> np.ndarray:
        counts = np.zeros(self.vocab_size**order, np.uint32)
        for places in self._places(tokens, order):
            np.add.at(counts, places, np.uint32(1))
        return counts.reshape((self.vocab_size,) * order)

    def _places(self, tokens: np.ndarray, order: int) -> Iterator[np.ndarray]:
        """Yield, in chunks, the index into the flat table of this order for each token with enough tokens before it."""
        last = len(tokens) - order + 1
        if last < 1:
            raise ValueError(f"{len(tokens)} tokens are too few for order {order}: give at least {order}")
        for start in range(0, last, CHUNK):
            stop = min(start + CHUNK, last)
            places = np.zeros(stop - start, np.int64)
            for n in range(order):
                ids = tokens[start + n : stop + n]
                if ids.max() >= self.vocab_size:
                    raise ValueError(f"id {ids.max()} is out of range: ids must be below {self.vocab_size}")
                places = places * self.vocab_size + ids
            yield places


def _smoothed(counts: np.ndarray, shorter: np.ndarray) -> np.ndarray:
    """Return the probabilities (V,) * order, from the counts and the probabilities of one order less."""
    seen = counts.sum(-1, keepdims=True, dtype=np.float64).astype(np.float32)
    kinds = np.count_nonzero(counts, axis=-1, keepdims=True).astype(np.float32)
    p = counts.astype(np.float32)
    p += kinds * shorter
    p /= np.maximum(seen + kinds, 1)
    return np.where(seen > 0, p, shorter)
