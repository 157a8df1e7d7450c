"""Batches: a pure function of the step, every window once an epoch, processes' rows are one process's; the loader."""

import threading
import time

import numpy as np
import pytest

from refgrad.train.text.batches import Batches
from refgrad.train.text.loader import Loader

TOKENS = np.arange(1000, dtype=np.uint16)
PINNED = [[135, 44, 91, 80, 33, 85, 2, 130], [70, 66, 87, 88, 32, 26, 72, 95], [88, 10, 75, 29, 1, 128, 87, 57]]


@pytest.mark.parametrize(
    ("sequence", "batch"), [(1, 9), (3, 1), (7, 4), (7, 142), (7, 143), (100, 3), (499, 5), (999, 4)]
)
def test_every_window_once_an_epoch(sequence, batch):
    batches = Batches(TOKENS, batch, sequence, seed=3)
    n = 999 // sequence
    assert batches.windows == n
    rows = np.concatenate([batches.at(step)[0] for step in range(3 * n // batch + 1)])
    for epoch in range(3):
        starts = rows[epoch * n : (epoch + 1) * n, 0]
        assert sorted(starts) == [window * sequence for window in range(n)]


def test_targets_follow_their_tokens():
    tokens, targets = Batches(TOKENS, 5, 7, seed=0).at(11)
    assert tokens.shape == targets.shape == (5, 7)
    assert tokens.dtype == targets.dtype == np.int32
    np.testing.assert_array_equal(tokens - tokens[:, :1], np.tile(np.arange(7), (5, 1)))
    np.testing.assert_array_equal(targets, tokens + 1)


def test_the_order_stays_as_it_is():
    """Pinned: another order would change what resumed training reads."""
    first = Batches(TOKENS, 8, 7, seed=0)
    assert first.order(0).tolist() == PINNED[0]
    assert first.order(10**12).tolist() == PINNED[1]
    assert Batches(TOKENS, 8, 7, seed=2**64 - 1).order(0).tolist() == PINNED[2]


def test_orders_are_as_good_as_random():
    n, batches = 999, Batches(TOKENS, 999, 1, seed=5)
    orders = np.stack([batches.order(epoch) for epoch in range(60)] + [Batches(TOKENS, 999, 1, 6).order(0)])
    lags = np.abs(np.corrcoef(orders)[np.triu_indices(len(orders), 1)])
    assert lags.max() < 5 / np.sqrt(n)  # between epochs, and seeds
    neighbours = [np.corrcoef(order[:-1], order[1:])[0, 1] for order in orders]
    assert np.abs(neighbours).max() < 5 / np.sqrt(n)
    kept = (orders == np.arange(n)).sum(1)  # fixed points of a permutation: 1 on average
    assert 0.5 < kept.mean() < 1.5
    halves = (orders[:, : n // 2] < n // 2).mean(1)
    assert np.abs(halves - 0.5).max() < 5 / np.sqrt(n)


@pytest.mark.parametrize("processes", [1, 2, 3, 6])
def test_processes_together_are_one(processes):
    whole = Batches(TOKENS, 6, 13, seed=1)
    parts = [Batches(TOKENS, 6, 13, 1, process, processes) for process in range(processes)]
    for step in (0, 1, 77):
        for n in (0, 1):
            together = np.concatenate([part.at(step)[n] for part in parts])
            np.testing.assert_array_equal(together, whole.at(step)[n])


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"batch": 0}, "batch is 0, but must be at least 1"),
        ({"sequence": 0}, "sequence is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
        ({"sequence": 1000}, r"a split of 1000 tokens is too short for sequence = 1000, which needs 1001.*at most 999"),
        ({"process": 2, "processes": 2}, "process is 2, but must be from 0 to 1"),
        ({"processes": 3}, "batch is 8, which 3 processes cannot divide: take a multiple of 3"),
    ],
)
def test_bad_input(given, error):
    with pytest.raises(ValueError, match=error):
        Batches(TOKENS, **{"batch": 8, "sequence": 9, "seed": 0, **given})
    with pytest.raises(ValueError, match="step is -1"):
        Batches(TOKENS, 8, 9, 0).at(-1)


def threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("refgrad-loader")]


def test_the_loader_is_in_order_and_ends():
    batches = Batches(TOKENS, 4, 9, seed=0)
    with Loader(batches.at, first=5) as loader:
        for step in range(5, 25):
            tokens, targets = next(loader)
            np.testing.assert_array_equal(tokens, batches.at(step)[0])
            np.testing.assert_array_equal(targets, batches.at(step)[1])
        assert threads()
    assert not threads()
    assert list(loader) == []


def test_the_loader_is_ahead_by_its_depth():
    made = []
    with Loader(made.append, depth=3) as loader:
        for taken in range(1, 5):
            next(loader)
            time.sleep(0.05)
            assert made == list(range(taken + 3))


def test_the_loader_says_how_long_it_was_waited_for():
    with Loader(lambda step: time.sleep(0.1), depth=1) as loader:
        for _ in range(3):
            next(loader)
        assert 0.15 < loader.waited < 1
    with Loader(lambda step: time.sleep(0.01), depth=2) as loader:
        for _ in range(5):
            time.sleep(0.1)
            next(loader)
        assert loader.waited < 0.05


def test_what_the_loader_meets_is_raised_at_its_batch():
    def make(step):
        if step == 3:
            raise OSError("the disk is gone")
        return step

    with Loader(make) as loader:
        assert [next(loader), next(loader), next(loader)] == [0, 1, 2]
        with pytest.raises(OSError, match="the disk is gone"):
            next(loader)
    assert not threads()
    with pytest.raises(ValueError, match="depth is 0"):
        Loader(make, depth=0)
