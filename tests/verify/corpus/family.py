"""One function with right and wrong backwards, and the specimens that they make."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Specimen:
    """A function at arguments in one dtype; `settings` are those of `check`."""

    name: str
    function: Callable
    args: tuple
    dtype: str
    settings: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Family:
    """`right` and `wrong` hold `bwd(args, g)` by description, `(fwd, bwd)`, or a function that is already a rule."""

    name: str
    forward: Callable
    args: tuple
    right: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    wrong: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    dtypes: tuple[str, ...] = ("float32",)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def specimens(self, backwards: Mapping[str, Any]) -> Iterator[Specimen]:
        for what, backward in backwards.items():
            settings = {} if backwards is self.wrong else self.settings
            for dtype in self.dtypes:
                name = f"{self.name}: {what} ({dtype})"
                yield Specimen(name, self._function(backward), self.cast(dtype), dtype, settings)

    def cast(self, dtype: str) -> tuple:
        """The arguments with their floats in a dtype, to be made under the x64 setting that it needs."""
        return tuple(x.astype(jnp.dtype(dtype)) if getattr(x, "dtype", None) == np.float64 else x for x in self.args)

    def _function(self, backward: Any) -> Callable:
        if hasattr(backward, "defvjp") or hasattr(backward, "defjvp"):
            return backward
        fwd, bwd = backward if isinstance(backward, tuple) else (None, backward)
        forward = self.forward

        def function(*args):
            return forward(*args)

        function.__name__ = self.name.replace(" ", "_")
        rule = jax.custom_vjp(function)
        rule.defvjp(fwd or (lambda *args: (forward(*args), args)), lambda args, g: _tuple(bwd(args, g)))
        return rule


def _tuple(found: Any) -> tuple:
    return found if isinstance(found, tuple) else (found,)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((7, seed, *shape)).standard_normal(shape)


def positive(*shape: int, seed: int = 0) -> np.ndarray:
    return np.abs(normal(*shape, seed=seed)) + 0.3


ALL = ("float32", "float64", "bfloat16")
WIDE = ("float32", "float64")
