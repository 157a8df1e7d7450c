"""D2.18 to D2.20: the embeddings and the negative log-likelihood, which move entries rather than compute."""

from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refgrad import cost
from refgrad.claims._ledger import Case, deferred
from refgrad.claims._oracle import gradients, normal
from refgrad.claims._rows import claims
from refgrad.claims.d2._cases import at, gradient, line, picked
from refgrad.claims.d2._model import BATCH, passes
from refgrad.models import gpt2
from refgrad.ops import operations

OPS = operations("derived")
EXAMPLE = np.array([2, 5, 2])  # D2's tokens, counted from 1
# A cost is O(h) if a constant times h bounds it whatever the batch; this constant stands here before any count.
CONSTANT = 4
BATCHES = ((1, 5), (2, 8), (4, 16), (8, 64))


@cache
def _example() -> tuple[tuple[dict[str, Any], np.ndarray], ...]:
    """The worked example at three widths: the gradients that come in, and the table's gradient."""
    found = []
    for V, h in ((6, 4), (7, 3), (9, 5)):
        E, dX = normal(V, V, h), normal(h, 3, h)
        (dE,) = gradients(lambda E, dX=dX: (OPS.token_embedding(E, jnp.asarray(EXAMPLE - 1)) * dX).sum(), E)
        found.append(({"V": V, "h": h, "dX": dX}, dE))
    return tuple(found)


@deferred
def example_rows(*numbers: int) -> Iterator[Case]:
    """Cases whose truth is these rows of the table's gradient, counted from 1; none: all but the example's."""
    for values, dE in _example():
        rows = np.array(numbers or [row for row in range(1, len(dE) + 1) if row not in EXAMPLE])
        yield Case(at(values, "V", "h"), {**values, "rows": rows.size}, dE[rows - 1])


@deferred
def additions(scatter: bool) -> Iterator[Case]:
    """Additions as the batch grows: of a program that adds rows of equal tokens alone, or of XLA's scatter."""
    V, h = 50, 6
    for batch, length in BATCHES:
        tokens = np.random.default_rng(0).integers(0, V, (batch, length))
        values = {"b": batch, "s": length, "h": h, "distinct": len(np.unique(tokens)), "constant": CONSTANT}
        counted = _scattered(V, h, tokens.shape) if scatter else _least(h, tokens)
        yield Case(f"b={batch}, s={length}", {**values, "additions": counted})


def _least(h: int, tokens: np.ndarray) -> int:
    """FLOPs of the traced program that sums the rows of each token, and copies where there is one."""
    flat = tokens.ravel()

    def rows(dx: Any) -> list[Any]:
        return [dx[flat == token].sum(0) for token in np.unique(flat)]

    return cost.count(rows, jax.ShapeDtypeStruct((flat.size, h), jnp.float64)).by_primitive["reduce_sum"].flops


def _scattered(V: int, h: int, shape: tuple[int, ...]) -> int | None:
    """XLA's own FLOPs of the operation's backward pass."""
    table, ids = jax.ShapeDtypeStruct((V, h), jnp.float64), jax.ShapeDtypeStruct(shape, jnp.int32)
    return cost.xla_backward(OPS.token_embedding, table, ids).flops


def negligible() -> Iterator[Case]:
    """XLA's additions for the tokens beside the whole backward pass, at GPT-2's sizes."""
    for name, config in gpt2.SIZES.items():
        backward = passes(name)[1]
        additions = backward.within("wte").by_primitive["scatter-add"].flops
        values = {"additions": additions, "backward": backward.flops, "negligible": Fraction(1, 1000)}
        yield Case(f"{name}, b={BATCH}, s={config.n_positions}", values)


table_gradient = gradient("token_embedding", "E", picked=picked)
nll_gradient = gradient("nll", "p", "L", picked=picked)


CLAIMS = claims(__name__, line=line)
