"""Bigram and trigram models: what counting two or three tokens predicts, for a trained model to be measured against.

After a context h of the last order − 1 tokens, seen n(h) times and followed by T(h) different tokens,

    p(w | h) = (c(h, w) + T(h) p(w | h′)) / (n(h) + T(h)),   h′ = h without its first token; p(w | no context) over 1/V.

That is Witten and Bell's smoothing, interpolated: nothing in it has to be chosen, every token has a probability above
0, and a context that never came leaves the word to the shorter one. (On the standard library's bytes Kneser and Ney's
loss is lower by 0.0001 nats for the bigram and 0.006 for the trigram.)

Sources: Witten & Bell, The zero-frequency problem (1991), method C; Chen & Goodman, An empirical study of smoothing
techniques for language modeling (1999), section 2.5.
"""

from collections.abc import Iterator

import numpy as np

LARGEST = 2**26
"""Entries of a table; one takes 12 bytes while it is fitted, 4 afterwards."""
CHUNK = 2**22
"""Tokens that are counted, or whose loss is taken, at a time."""


class NGram:
    """p(w | the order − 1 tokens before), fitted to `tokens`: an array (vocab_size,) * order, float32."""

    def __init__(self, tokens: np.ndarray, vocab_size: int, order: int) -> None:
        """Count `tokens` (n,) and smooth.

        Raises ValueError where the table would be too large, as for words in place of bytes, where the tokens are
        fewer than `order`, and for an order below 1.
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
        """−log p in nats, averaged over every token (n,) that has order − 1 before it.

        Raises ValueError where there is none, or where an id is out of range.
        """
        table = self.probabilities.reshape(-1)
        total = sum(
            float(-np.log(table[places], dtype=np.float64).sum()) for places in self._places(tokens, self.order)
        )
        return total / (len(tokens) - self.order + 1)

    def sample(self, n: int, seed: int, start: int = 0) -> np.ndarray:
        """`n` ids (n,) drawn one after another, the first after `start`, such as the separator of documents."""
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
        """Where in the flat table of this order each of the tokens stands that has enough before it, in chunks."""
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
    """The probabilities (V,) * order, from the counts and the probabilities of one order less."""
    seen = counts.sum(-1, keepdims=True, dtype=np.float64).astype(np.float32)
    kinds = np.count_nonzero(counts, axis=-1, keepdims=True).astype(np.float32)
    p = counts.astype(np.float32)
    p += kinds * shorter
    p /= np.maximum(seen + kinds, 1)
    return np.where(seen > 0, p, shorter)
