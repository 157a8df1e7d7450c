"""The division of a test's cases between the fast lane and the slow one."""

from collections.abc import Callable, Iterable

import pytest


def fast_if(fast: Callable[..., bool], cases: Iterable) -> list:
    """The cases as parameters; those of which `fast` is not true run in the slow lane."""
    return [_parameter(case if isinstance(case, tuple) else (case,), fast) for case in cases]


def _parameter(values: tuple, fast: Callable[..., bool]):
    return pytest.param(*values, marks=() if fast(*values) else pytest.mark.slow)
