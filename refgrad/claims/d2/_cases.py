"""Parts shared by D2's rows: three shapes, an operation's gradients there, and its FLOPs as XLA and as D2 count them.

D2 counts in conventions of its own, which it mostly does not name. Each is a name here, and a figure of D2 "holds
when" the conventions named beside it are followed: all of them give D2's figure, leaving one out does not.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from refgrad import cost
from refgrad.claims._ledger import Case, Check, deferred
from refgrad.claims._oracle import gradients, normal
from refgrad.jaxpr.scaffold import scaffold
from refgrad.models import gpt2_costs
from refgrad.ops import TABLE

SIZES = (
    {"b": 2, "s": 5, "h": 6, "n_h": 2, "d": 3, "V": 7, "i": 4, "o": 3},
    {"b": 3, "s": 4, "h": 10, "n_h": 2, "d": 5, "V": 9, "i": 2, "o": 6},
    {"b": 4, "s": 7, "h": 8, "n_h": 4, "d": 2, "V": 11, "i": 5, "o": 8},
)
PRINTED = {line.claim: line for line in gpt2_costs.PRINTED_OPERATIONS}
ITEM = 8  # bytes of a float64


class Condition(NamedTuple):
    """A condition that a figure may need, in words, and the name of a case without it."""

    words: str
    unmet: str


CONVENTIONS: Mapping[str, Condition] = {
    "sums": Condition("a sum of n terms counts as n operations", "n − 1 for a sum of n terms"),
    "transcendentals": Condition("exp and tanh count as one operation each", "exp and tanh counted apart"),
    "rows": Condition("what is done once a row, or once in all, is left out", "with what is done once a row or in all"),
}


def at(dims: Mapping[str, int], *names: str) -> str:
    """Name a case by these dimensions, or by all of the model's."""
    return ", ".join(f"{name}={dims[name]}" for name in names or ("b", "s", "h", "n_h", "V"))


@cache
def pulled(name: str, of: str) -> tuple[tuple[dict[str, Any], dict[str, Any]], ...]:
    """Values that a formula may use, and argument → its gradient, at each of the sizes.

    The values are the dimensions, the operation's arguments, ε and the like, its value as `of` and the cotangent of
    that as "d" + `of`.
    """
    row, found = TABLE[name], []
    for seed, dims in enumerate(SIZES):
        op = row.bound(dims)
        arrays = dict(zip(row.arguments, row.sample(seed, dims, jnp.float64), strict=True))
        y = np.asarray(scaffold(op)(*arrays.values()))
        ct = normal(seed + 9, *y.shape)

        def loss(*moving: Any, op=op, arrays=arrays, ct=ct) -> Any:
            return (op(*{**arrays, **dict(zip(row.differentiable, moving, strict=True))}.values()) * ct).sum()

        grads = gradients(loss, *(arrays[argument] for argument in row.differentiable))
        statics = dict(zip(row.statics, row.static_values(dims), strict=True))
        known = {argument: np.asarray(array) for argument, array in arrays.items()}
        values = {**dims, **statics, **known, of: y, f"d{of}": ct}
        found.append((values, dict(zip(row.differentiable, grads, strict=True))))
    return tuple(found)


@deferred
def gradient(name: str, argument: str, of: str = "y", **more: Callable[..., Any]) -> Iterator[Case]:
    """Cases whose truth is the gradient of one of the operation's arguments; `more` are further values, made of the
    others."""
    for values, grads in pulled(name, of):
        extra = {key: make(values) for key, make in more.items()}
        yield Case(at(values), {**values, **extra}, grads[argument])


def picked(values: Mapping[str, Any]) -> np.ndarray:
    """1 where a place's id is the column's, else 0: (places…, V), from the ids "tokens" or "targets"."""
    ids = values["tokens"] if "tokens" in values else values["targets"]
    return np.eye(values["V"])[ids]


def once_a_row(counted: cost.Count, row: int) -> int:
    """FLOPs at the sites that read fewer elements than `row`, the largest array's: one a row, or one in all."""
    return sum(c.matmul + c.elementwise for c in counted.sites.values() if c.read < row * ITEM)


def by(counted: cost.Count, largest: int, conventions: Collection[str]) -> int:
    """FLOPs in float64 by these of the CONVENTIONS, XLA's otherwise; `largest`: elements of the largest array."""
    flops = counted.flops
    if "sums" in conventions:
        flops += counted.where(lambda site: site.primitive == "reduce_sum").total.written // ITEM
    if "transcendentals" in conventions:
        flops += counted.transcendental
    if "rows" in conventions:
        flops -= once_a_row(counted, largest)
    return flops


@cache
def backward(name: str, n: int, widths: tuple[tuple[str, int], ...] = ()) -> tuple[cost.Count, int]:
    """The traced backward pass of an operation at the n-th size, and the elements of its largest argument."""
    row, dims = TABLE[name], {**SIZES[n], **dict(widths)}
    shapes = row.shapes(dims, jnp.float64)
    return cost.count_backward(row.bound(dims), *shapes), max(shape.size for shape in shapes)


def settings(
    says: str,
    printed: str,
    measure: Callable[[int, Collection[str]], int],
    needs: Mapping[str, Condition] | None = None,
) -> Check:
    """A figure that needs these conditions, each of them: measured at every size with all of them, with all but each
    one, and with none. `measure` takes the size's number and the conditions that are met."""
    needs = needs or {}
    tried = dict.fromkeys([tuple(needs), *(tuple(n for n in needs if n != left) for left in needs), ()])

    def cases() -> Iterator[Case]:
        for n, dims in enumerate(SIZES):
            for met in tried:
                values = {**dims, **{name: name in met for name in needs}}
                unmet = [condition.unmet for name, condition in needs.items() if name not in met]
                where = f"{at(dims)} ({', '.join(unmet)})" if unmet else at(dims)
                yield Case(where, values, measure(n, met))

    words = ", and ".join(condition.words for condition in needs.values())
    return Check(says, printed, cases, when=" and ".join(needs), condition=words)


def line(claim: str, *conventions: str) -> Check:
    """The check of one line of D2's tally: its printed polynomial against the traced backward pass."""
    use = PRINTED[claim].use

    def measure(n: int, met: Collection[str]) -> int:
        sizes = use.sizes(SIZES[n])
        counted, largest = backward(use.op, n, tuple((name, sizes[name]) for name in ("i", "o")))
        return by(counted, largest, met)

    return settings("FLOPs", str(PRINTED[claim].flops), measure, {name: CONVENTIONS[name] for name in conventions})
