"""Sets of entries of an array, as flat positions."""

import numpy as np

Places = np.ndarray  # flat positions, sorted, each once
NOWHERE: Places = np.empty(0, np.int64)


def union(one: Places, other: Places) -> Places:
    """Return the places in either set."""
    if not one.size or one is other:
        return other
    return distinct(np.concatenate([one, other])) if other.size else one


def distinct(at: np.ndarray) -> Places:
    """Return positions sorted, each once."""
    return np.unique(at) if at.size > 1 else at.ravel()


def within(places: Places, at: np.ndarray) -> np.ndarray:
    """Return True for each position that is among the places."""
    if places.size < 2:
        return at == places[0] if places.size else np.zeros(at.shape, bool)
    return places[np.minimum(np.searchsorted(places, at), places.size - 1)] == at
