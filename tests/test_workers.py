"""Workers give what one process gives, in order, errors included."""

import os

import pytest

from refgrad._workers import workers


def square(n):
    if n == 13:
        raise ValueError("n is 13")
    return n * n, os.getpid()


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_order_and_errors_are_raised(processes):
    with workers(20, processes=processes) as each:
        twice = [each(square, list(range(first, 13)), "squares") for first in (0, 6)]
        found = [list(results) for results in twice]
        assert [[n for n, _ in results] for results in found] == [[n * n for n in range(first, 13)] for first in (0, 6)]
        assert ({pid for _, pid in found[0]} == {os.getpid()}) is (processes == 1)
        with pytest.raises(ValueError, match="n is 13"):
            list(each(square, [12, 13, 14], "squares"))


def test_few_pieces_start_no_process():
    with workers(7, processes=2) as each:
        assert {pid for _, pid in each(square, [1, 2, 3], "squares")} == {os.getpid()}
