"""Truths of the ledger: the project's derived rule and autodiff of the plain forward, which must agree.

All in float64: the ledger runs with 64-bit types on.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import jax
import numpy as np

from refgrad import verify
from refgrad.claims._ledger import Case, Cases, deferred
from refgrad.jaxpr.scaffold import scaffold

AGREE = 1e-12  # of the largest entry


class Disagreement(AssertionError):
    """A derived rule of the project and autodiff of its plain forward differ: neither can be the truth."""


def gradients(f: Callable[..., Any], *args: Any) -> Any:
    """The gradients of the scalar f by every argument, as NumPy arrays in the arguments' own trees.

    By f as it is, with the project's rules, and by autodiff of `verify.without_rules(f)`; the latter is returned.
    Raises Disagreement where an entry differs by more than `AGREE` of the largest.
    """
    every = tuple(range(len(args)))
    both = jax.grad(f, every), jax.grad(verify.without_rules(f), every)
    with jax.default_matmul_precision("highest"):
        rule, truth = scaffold(lambda *args: tuple(gradient(*args) for gradient in both))(*args)
    for got, want in zip(jax.tree.leaves(rule), jax.tree.leaves(truth), strict=True):
        gap = np.max(np.abs(got - want), initial=0.0)
        if not gap <= AGREE * (np.max(np.abs(want), initial=0.0) or 1.0):
            raise Disagreement(f"the rule of {f} differs by {gap:.1e} from autodiff at shape {np.shape(want)}")
    return jax.tree.map(np.asarray, truth)


def value(f: Callable[..., Any], *args: Any) -> Any:
    """f(*args) as NumPy arrays, compiled as one program: operation by operation, each would be compiled alone."""
    return jax.tree.map(np.asarray, scaffold(f)(*args))


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


def at_sizes(sizes: Sequence[Mapping[str, int]]) -> Callable[[Callable[..., Any]], Callable[[str], Cases]]:
    """Decorate a system, **sizes → (values, truths by name): name → the cases at each of `sizes` that have that truth.

    Each size is computed once, when a row first asks for it. The values that a formula may use include the size. Under
    the name "" the cases have no truth: the formula is a statement.
    """

    def decorate(system: Callable[..., Any]) -> Callable[[str], Cases]:
        @cache
        def computed() -> list[Any]:
            return [(at(size), *system(**size)) for size in sizes]

        @deferred
        def cases(name: str) -> Iterator[Case]:
            for (where, values, truths), size in zip(computed(), sizes, strict=True):
                yield Case(where, {**size, **values}, truths[name] if name else True)

        return cases

    return decorate


@cache
def _pullbacks(f: Callable[..., Any], shapes: tuple[tuple[int, ...], ...], arguments: int, scale: float) -> list[Any]:
    """Yield, at each shape, f's arguments and cotangent, and the gradients of the arguments."""
    found = []
    for shape in shapes:
        *args, ct = (normal(seed, *shape) for seed in range(arguments + 1))
        args = [scale * arg for arg in args]
        found.append(([*args, ct], gradients(weighted(f, ct), *args)))
    return found


@deferred
def pullback(
    f: Callable[..., Any],
    shapes: tuple[tuple[int, ...], ...],
    names: tuple[str, ...],
    argument: int = 0,
    scale: float = 1.0,
    constants: Mapping[str, float] | None = None,
) -> Iterator[Case]:
    """Cases of f, element by element, at arrays of these shapes, whose truth is the gradient of one argument.

    `names` are those of f's arguments, normal of `scale`, and of its cotangent; a formula may use `constants` too.
    """
    for arrays, truth in _pullbacks(f, shapes, len(names) - 1, scale):
        where = "×".join(map(str, arrays[0].shape))
        yield Case(where, {**dict(zip(names, arrays, strict=True)), **(constants or {})}, truth[argument])


def at(sizes: Mapping[str, Any]) -> str:
    """Sizes as text: "B=4, D=6"."""
    return ", ".join(f"{name}={value}" for name, value in sizes.items())
