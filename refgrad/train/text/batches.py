"""A step's number → its batch, so that a run resumes exactly without saving a position in the data.

The tokens are cut into windows of `sequence`; a target is the next token, so that a window reads one more. Counted over
all steps, row k of training is window π_e(k mod n) of n windows in epoch e = ⌊k/n⌋, where π_e is a permutation: each
window comes once per epoch, and a batch may end one epoch and begin the next.

π_e is computed, not stored, by a Feistel network on the smallest even number of bits that holds n − 1:

    (L, R) → (R, L ⊕ F(R, round key)),

which is a permutation for every F. It is repeated while its result is ≥ n ("cycle walking"), which leaves a permutation
of 0 … n − 1. So it is the same under every version of NumPy, and needs no more memory than the batch's rows.

Sources: Luby & Rackoff, How to construct pseudorandom permutations (1988); Black & Rogaway, Ciphers with arbitrary
finite domains (2002), method 2; F is the finaliser of SplitMix64 (Steele, Lea & Flood 2014).
"""

import numpy as np

ROUNDS = 6


class Batches:
    """The batches of training, each a pure function of its step's number."""

    def __init__(
        self, tokens: np.ndarray, batch: int, sequence: int, seed: int, process: int = 0, processes: int = 1
    ) -> None:
        """Cut the tokens into windows.

        The rows of all processes, in order, are those that a single process would have.

        Args:
            tokens: Ids (n,).
            batch: Rows of the batch of all processes.
            sequence: Tokens per row.
            seed: The seed of the permutations.
            process: The index of the process whose rows are taken.
            processes: The number of processes, which divides `batch`.

        Raises:
            ValueError: A number is out of range, the tokens are too few for a window and its last target, or the
                processes do not divide the batch.
        """
        for name, value in (("batch", batch), ("sequence", sequence)):
            if value < 1:
                raise ValueError(f"{name} is {value}, but must be at least 1")
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed is {seed}, but must be from 0 to 2⁶⁴ − 1")
        if len(tokens) < sequence + 1:
            raise ValueError(
                f"a split of {len(tokens)} tokens is too short for sequence = {sequence}, which needs {sequence + 1}: "
                f"take a sequence of at most {max(len(tokens) - 1, 0)}, or more text"
            )
        if not 0 <= process < processes:
            raise ValueError(f"process is {process}, but must be from 0 to {processes - 1}: there are {processes}")
        if batch % processes:
            raise ValueError(
                f"batch is {batch}, which {processes} processes cannot divide: take a multiple of {processes}"
            )
        self._windows = np.lib.stride_tricks.sliding_window_view(tokens, sequence + 1)[::sequence]  # (n, s + 1)
        self._batch, self._seed = batch, seed
        rows = batch // processes
        self._rows = np.arange(process * rows, (process + 1) * rows)

    @property
    def windows(self) -> int:
        """The windows of an epoch, which has `windows / batch` steps."""
        return len(self._windows)

    def at(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return this step's tokens and targets (batch / processes, sequence), int32. Raise ValueError if step < 0."""
        rows = self._windows[self.order(step)].astype(np.int32)  # (b, s + 1)
        return rows[:, :-1], rows[:, 1:]

    def order(self, step: int) -> np.ndarray:
        """Return the window of each of the step's rows, (batch / processes,). Raise ValueError if `step` < 0."""
        if step < 0:
            raise ValueError(f"step is {step}, but must be at least 0")
        epochs, places = np.divmod(step * self._batch + self._rows, self.windows)
        return permuted(places.astype(np.uint64), epochs.astype(np.uint64), self._seed, self.windows)


def permuted(places: np.ndarray, epochs: np.ndarray, seed: int, n: int) -> np.ndarray:
    """Return the image of each place of 0 … n − 1 (k,) in the permutation of its epoch (k,), all uint64."""
    half = max((n - 1).bit_length() + 1 >> 1, 1)
    mask, shift = np.uint64(2**half - 1), np.uint64(half)
    base = _mixed(_mixed(np.full_like(epochs, seed)) ^ epochs)
    keys = [_mixed(base + np.uint64(r)) for r in range(ROUNDS)]
    result, left = places, np.arange(len(places))
    while left.size:
        high, low = result[left] >> shift, result[left] & mask
        for key in keys:
            high, low = low, high ^ (_mixed(low ^ key[left]) & mask)
        result[left] = high << shift | low
        left = left[result[left] >= n]
    return result


def _mixed(x: np.ndarray) -> np.ndarray:
    """Return SplitMix64's next output after the state x, a bijection of 64 bits."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)
