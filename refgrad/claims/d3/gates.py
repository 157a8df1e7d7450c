"""D3's gates (D3.6), the sigmoid neuron (D3.7), and flat against modular code (D3.11)."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import jax
import numpy as np

from refgrad.claims._ledger import Case, Cases, deferred
from refgrad.claims._oracle import gradients, normal, pullback, value, weighted
from refgrad.claims._rows import claims
from refgrad.ops import operations

OPS = operations("derived")
SHAPES = ((3,), (2, 5), (4, 1, 3))
# The weights and inputs of D3.7 stand in a lost picture. These give its argument of 1.00.
NEURON = {"w0": 2.0, "x0": -1.0, "w1": -3.0, "x1": -2.0, "w2": -3.0}


def gate(name: str, argument: int) -> Cases:
    """Cases whose truth is the gradient of one argument of a gate with two."""
    return pullback(getattr(OPS, name), SHAPES, ("x", "y", "dz"), argument)


def copied() -> Iterator[Case]:
    """The gradient of what a copy gate hands to two readers."""
    for shape in SHAPES:
        x, da, db = (normal(seed, *shape) for seed in range(3))

        def used_twice(x: Any, da: Any = da, db: Any = db) -> Any:
            a, b = OPS.copy(x)
            return (a * da + b * db).sum()

        yield Case("×".join(map(str, shape)), {"da": da, "db": db}, gradients(used_twice, x)[0])


def tied() -> Iterator[Case]:
    """Max's gradient where one input wins and where both are the same."""
    for where, x, y in (("x > y", 2.0, 1.0), ("x < y", 1.0, 2.0), ("x = y", 1.5, 1.5)):
        dx, dy = gradients(weighted(OPS.maximum, np.float64(3.0)), np.float64(x), np.float64(y))
        yield Case(where, {"x": x, "y": y, "dx": float(dx), "dy": float(dy), "upstream": 3.0})


def _product_of_sum(x: Any, y: Any, z: Any) -> Any:
    """f = (x + y) z of two gates."""
    return OPS.mul(OPS.add(x, y), z)


@deferred
def numbers(name: str) -> Iterator[Case]:
    """f or one of its gradients at (−2, 5, −4)."""
    point = {"x": np.float64(-2), "y": np.float64(5), "z": np.float64(-4)}
    truth = dict(zip(point, gradients(_product_of_sum, *point.values()), strict=True))
    yield Case("", point, {**truth, "f": value(_product_of_sum, *point.values())}[name])


def _argument(w0: Any, x0: Any, w1: Any, x1: Any, w2: Any) -> Any:
    """w0 x0 + w1 x1 + w2 of add and mul gates."""
    return OPS.add(OPS.add(OPS.mul(w0, x0), OPS.mul(w1, x1)), w2)


def _single(*leaves: Any) -> Any:
    """The neuron with sigmoid as one gate."""
    return OPS.sigmoid(_argument(*leaves))


def _chain(*leaves: Any) -> Any:
    """The neuron of small gates: times −1, exp, plus 1, and the reciprocal."""
    return 1 / OPS.add(jax.numpy.exp(OPS.mul(_argument(*leaves), np.float64(-1))), np.float64(1))


@cache
def _neurons() -> tuple[tuple[str, dict[str, Any]], ...]:
    """Every value, and the gradients by both ways, at the chosen inputs and at drawn ones."""
    draws = [NEURON] + [dict(zip(NEURON, normal(seed, 5).tolist(), strict=True)) for seed in (0, 1)]
    found = []
    for i, point in enumerate(draws):
        leaves = [np.float64(value) for value in point.values()]
        names = [f"d{name}" for name in point]
        single = np.array(gradients(_single, *leaves))
        values = {**point, "L": float(value(_single, *leaves)), "argument": float(value(_argument, *leaves))}
        values |= {"single": single, "chain": np.array(gradients(_chain, *leaves))}
        values |= dict(zip(names, single, strict=True))
        found.append(("w = [2, −3, −3], x = [−1, −2], chosen here" if i == 0 else f"draw {i}", values))
    return tuple(found)


@deferred
def neuron(truth: str) -> Iterator[Case]:
    """Every neuron; the truth is one of its values."""
    for where, values in _neurons():
        yield Case(where, values, np.asarray(values[truth]))


@deferred
def chosen(truth: str) -> Iterator[Case]:
    """The neuron at the chosen inputs, rounded to the two digits that are printed."""
    where, values = _neurons()[0]
    (local,) = gradients(OPS.sigmoid, np.float64(values["argument"]))
    yield Case(where, values, round({**values, "local": float(local)}[truth], 2))


def slopes() -> Iterator[Case]:
    """The slope of the sigmoid between −5 and 5."""
    for n in (3, 8, 20):
        x = np.linspace(-5, 5, n)
        yield Case(f"{n} arguments from −5 to 5", {"x": x}, gradients(lambda x: OPS.sigmoid(x).sum(), x)[0])


CLAIMS = claims(__name__)
