"""One rule at one set of arguments."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

Expected = Literal["right", "wrong", "meant to differ", "not decided"]


@dataclasses.dataclass(frozen=True)
class Use:
    """One rule at one set of arguments: what `verify.check` is given, and the verdict that is expected of it."""

    name: str
    f: Callable
    args: tuple
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Further arguments of `verify.check`: kwargs, argnums, tolerance, intent, reference."""
    expected: Expected = "right"
    why: str = ""
    """The reason of every verdict but "right"; for "wrong" the fault itself."""
    plain: Callable | None = None
    """The same function of the same arguments, without a rule: the independent reference."""
    x64: bool = False


def normal(*shape: int, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    """Standard normal entries."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def positive(*shape: int, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    """Entries between 0.1 and 2."""
    return np.random.default_rng(seed).uniform(0.1, 2, shape).astype(dtype)


def simplex(*shape: int, seed: int = 0) -> np.ndarray:
    """Positive entries whose last axis sums to one."""
    x = positive(*shape, seed=seed)
    return x / x.sum(-1, keepdims=True)
