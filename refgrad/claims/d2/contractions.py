"""D2.3 to D2.11: products of matrices, their gradients and their FLOPs."""

from collections.abc import Collection, Iterator
from fractions import Fraction
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refgrad import cost
from refgrad.claims._ledger import Case, Check, deferred
from refgrad.claims._oracle import gradients, normal, weighted
from refgrad.claims._rows import claims
from refgrad.claims.d2._cases import CONVENTIONS, PRINTED, SIZES, Condition, at, backward, by, line, pulled, settings
from refgrad.models import gpt2
from refgrad.ops import operations

OPS = operations("derived")
# Rows in front of the columns: one vector, a matrix, a batch of matrices.
FORMS = {"vector": ((1,),) * 3, "matrix": ((5,), (3,), (4,)), "tensor": ((2, 3), (4, 2), (3, 5))}
UNBIASED = Condition(
    "the layer has no bias (as the document's; GPT-2's adds bs − 1 for each column of its output)", "with a bias"
)
COLUMNS = ((3, 4), (5, 2), (2, 7))


@cache
def _product(form: str) -> tuple[tuple[dict[str, Any], dict[str, Any]], ...]:
    """Values of z = x W with its cotangent, and both gradients, for a vector x, a matrix and a tensor."""
    found = []
    for n, (rows, (N, P)) in enumerate(zip(FORMS[form], COLUMNS, strict=True)):
        x, W, dz = normal(n, *rows, N), normal(n + 3, N, P), normal(n + 6, *rows, P)
        dx, dW = gradients(weighted(OPS.matmul, dz), x, W)
        named = dict(zip(("b", "s") if len(rows) == 2 else ("M",), rows, strict=True))
        found.append(({**named, "N": N, "P": P, "x": x, "W": W, "dz": dz}, {"x": dx, "W": dW}))
    return tuple(found)


@deferred
def gradient(form: str, argument: str) -> Iterator[Case]:
    """Cases of one form, whose truth is the gradient of one argument."""
    for values, grads in _product(form):
        sizes = ", ".join(f"{name}={value}" for name, value in values.items() if isinstance(value, int))
        yield Case(sizes, values, grads[argument])


@deferred
def heads(name: str, argument: str, of: str, transposed: bool = False) -> Iterator[Case]:
    """Cases for the first and the last head: its own slices alone, and its own part of the gradient.

    `transposed` says for the key both how the document's product takes it, and how the operation does.
    """
    for values, grads in pulled(name, of):
        for which, place in (("first", (0, 0)), ("last", (-1, -1))):
            slices = {k: v[place] for k, v in values.items() if np.ndim(v) == 4}
            where, grad = f"{at(values, 's', 'd')}, {which} head", grads[argument][place]
            yield Case(where, {**slices, "as_printed": False}, grad)
            if transposed:
                yield Case(f"{where}, of the transposed", {**slices, "as_printed": True}, grad.T)


def _scalar_by_scalar() -> Iterator[tuple[dict[str, int], cost.Count]]:
    """A product of (m, n) and (n, p) written out as multiplications and a sum, and its count."""
    for m, n, p in ((2, 3, 4), (5, 2, 3), (3, 7, 2)):
        left, right = (jax.ShapeDtypeStruct(shape, jnp.float64) for shape in ((m, n, 1), (1, n, p)))
        yield {"m": m, "n": n, "p": p}, cost.count(lambda x, w: (x * w).sum(1), left, right)


@deferred
def products(primitive: str) -> Iterator[Case]:
    """Cases whose truth is the part of that count that a primitive does."""
    for dims, counted in _scalar_by_scalar():
        yield Case(at(dims, *dims), dims, counted.by_primitive[primitive].flops)


def both() -> Iterator[Case]:
    """Cases whose truth is that count, exact and with n additions for a sum of n terms."""
    for dims, counted in _scalar_by_scalar():
        for sums in (True, False):
            flops = by(counted, 0, ("sums",) if sums else ())
            where = at(dims, *dims) + ("" if sums else f" ({CONVENTIONS['sums'].unmet})")
            yield Case(where, {**dims, "sums": sums}, flops)


def about() -> Iterator[Case]:
    """2mnp beside mp(2n − 1) at the shortest sums of GPT-2's products: over a head's width."""
    for size, config in gpt2.SIZES.items():
        dims = config.dims(1, config.n_positions)
        values = {"m": dims["s"], "n": dims["d"], "p": dims["s"], "about": Fraction(1, 100)}
        yield Case(f"{size}, n = d", values)


def unbiased_line(claim: str) -> Check:
    """A weight's product in the table: exact without a bias, which the document's model does not have."""
    use = PRINTED[claim].use

    def measure(n: int, met: Collection[str]) -> int:
        sizes = use.sizes(SIZES[n])
        name = "matmul" if "unbiased" in met else use.op
        return backward(name, n, (("i", sizes["i"]), ("o", sizes["o"])))[0].flops

    return settings("FLOPs", str(PRINTED[claim].flops), measure, {"unbiased": UNBIASED})


CLAIMS = claims(__name__, line=line)
