"""Where the ledger's truths come from: the project's derived rule and autodiff of the plain forward, which must agree.

All in float64: the ledger runs with 64-bit types on.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import jax
import numpy as np

from refgrad import verify

AGREE = 1e-12  # of the largest entry
QUICK = {"xla_backend_optimization_level": 0}  # each program runs once, on small arrays: compiling is all it costs


class Disagreement(AssertionError):
    """A derived rule of the project and autodiff of its plain forward differ: neither can be the truth."""


def once(f: Callable[..., Any]) -> Any:
    """f compiled as one program, with little optimisation."""
    return jax.jit(f, compiler_options=QUICK)


def gradients(f: Callable[..., Any], *args: Any) -> Any:
    """The gradients of the scalar f by every argument, as NumPy arrays in the arguments' own trees.

    By f as it is, with the project's rules, and by autodiff of `verify.without_rules(f)`; the latter is returned.
    Raises Disagreement where an entry differs by more than `AGREE` of the largest.
    """
    every = tuple(range(len(args)))
    both = jax.grad(f, every), jax.grad(verify.without_rules(f), every)
    with jax.default_matmul_precision("highest"):
        rule, truth = once(lambda *args: tuple(gradient(*args) for gradient in both))(*args)
    for got, want in zip(jax.tree.leaves(rule), jax.tree.leaves(truth), strict=True):
        gap = np.max(np.abs(got - want), initial=0.0)
        if not gap <= AGREE * (np.max(np.abs(want), initial=0.0) or 1.0):
            raise Disagreement(f"the rule of {f} differs by {gap:.1e} from autodiff at shape {np.shape(want)}")
    return jax.tree.map(np.asarray, truth)


def value(f: Callable[..., Any], *args: Any) -> Any:
    """f(*args) as NumPy arrays, compiled as one program: operation by operation, each would be compiled alone."""
    return jax.tree.map(np.asarray, once(f)(*args))


@cache
def normal(seed: int, *shape: int) -> Any:
    """Standard normal float64 values of `shape`, the same for the same seed. Do not write into it."""
    values = np.random.default_rng(seed).standard_normal(shape)
    values.setflags(write=False)
    return values


def weighted(f: Callable[..., Any], ct: Any) -> Callable[..., Any]:
    """The scalar Σ ct · f(…): its gradients are the pullback of `ct` through f."""

    def scalar(*args: Any) -> Any:
        return (f(*args) * ct).sum()

    return scalar


def at(sizes: Mapping[str, Any]) -> str:
    """Sizes as text: "B=4, D=6"."""
    return ", ".join(f"{name}={value}" for name, value in sizes.items())
