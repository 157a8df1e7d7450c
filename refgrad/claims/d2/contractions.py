"""D2.3 to D2.11: products of matrices, their gradients and their FLOPs."""

from collections.abc import Collection, Iterator
from fractions import Fraction
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refgrad import cost
from refgrad.claims._ledger import Case, Check, Claim, deferred
from refgrad.claims._oracle import gradients, normal, weighted
from refgrad.claims.d2._cases import CONVENTIONS, PRINTED, SIZES, Condition, at, backward, by, line, pulled, settings
from refgrad.models import gpt2
from refgrad.ops import operations
from refgrad.symbols import evaluate

OPS = operations("derived")
TABLE = "Tensor Contractions, table of operations"
AUTODIFF = "autodiff of the plain forward and the derived rule, in float64"
COUNTED = "the FLOPs of the traced backward pass, exact"
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
def _gradient(form: str, argument: str) -> Iterator[Case]:
    for values, grads in _product(form):
        sizes = ", ".join(f"{name}={value}" for name, value in values.items() if isinstance(value, int))
        yield Case(sizes, values, grads[argument])


@deferred
def _heads(name: str, argument: str, of: str, transposed: bool = False) -> Iterator[Case]:
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
def _products(primitive: str) -> Iterator[Case]:
    """Cases whose truth is the part of that count that a primitive does."""
    for dims, counted in _scalar_by_scalar():
        yield Case(at(dims, *dims), dims, counted.by_primitive[primitive].flops)


def _both() -> Iterator[Case]:
    """Cases whose truth is that count, exact and with n additions for a sum of n terms."""
    for dims, counted in _scalar_by_scalar():
        for sums in (True, False):
            flops = by(counted, 0, ("sums",) if sums else ())
            where = at(dims, *dims) + ("" if sums else f" ({CONVENTIONS['sums'].unmet})")
            yield Case(where, {**dims, "sums": sums}, flops)


def _about() -> Iterator[Case]:
    """2mnp beside mp(2n − 1) at the shortest sums of GPT-2's products: over a head's width."""
    for size, config in gpt2.SIZES.items():
        dims = config.dims(1, config.n_positions)
        values = {"m": dims["s"], "n": dims["d"], "p": dims["s"], "about": Fraction(1, 100)}
        yield Case(f"{size}, n = d", values)


def _line(claim: str) -> Check:
    """A weight's product in the table: exact without a bias, which the document's model does not have."""
    use = PRINTED[claim].use

    def measure(n: int, met: Collection[str]) -> int:
        sizes = use.sizes(SIZES[n])
        name = "matmul" if "unbiased" in met else use.op
        return backward(name, n, (("i", sizes["i"]), ("o", sizes["o"])))[0].flops

    return settings("FLOPs", str(PRINTED[claim].flops), measure, {"unbiased": UNBIASED})


def _weight(claim: str, name: str) -> Claim:
    """The row of one of GPT-2's linear layers."""
    flops = str(evaluate(PRINTED[claim].flops, {"b": 1, "s": 1, "h": 1}))
    return Claim(
        claim,
        TABLE,
        f"{name}'s backward pass, two products, costs {flops}bsh².",
        COUNTED,
        (_line(claim),),
        see=("D2.3", "D2.23"),
        more="refgrad verify --op linear",
        ops=("linear", "matmul"),
    )


CLAIMS = (
    Claim(
        "D2.3",
        "Tensor Contractions; Extension to Tensor Operations in Transformers",
        "For z = xW with a vector, a matrix or a tensor x: the input's gradient is that of z times Wᵀ, the weight's "
        "is xᵀ times that of z, summed over the batch, which one reshaped product does.",
        f"matmul: {AUTODIFF}",
        (
            Check("vector, ∂L/∂x", "dz @ W.T", _gradient("vector", "x")),
            Check("vector, ∂L/∂W, an outer product", "x.T @ dz", _gradient("vector", "W")),
            Check("matrix, ∂L/∂X", "dz @ W.T", _gradient("matrix", "x")),
            Check("matrix, ∂L/∂W", "x.T @ dz", _gradient("matrix", "W")),
            Check(
                "matrix, ∂L/∂W row by row",
                "einsum('mnp->np', x[:, :, None] * dz[:, None, :])",
                _gradient("matrix", "W"),
            ),
            Check("tensor, ∂L/∂X slice by slice", "dz @ W.T", _gradient("tensor", "x")),
            Check(
                "tensor, ∂L/∂W summed over the batch", "sum(einsum('bsn,bsp->bnp', x, dz), 0)", _gradient("tensor", "W")
            ),
            Check(
                "tensor, ∂L/∂W as one (N, bs) @ (bs, P)",
                "reshape(x, b * s, N).T @ reshape(dz, b * s, P)",
                _gradient("tensor", "W"),
            ),
        ),
        see=("D0.6", "D1.5", "D3.14", "D4.4"),
        more="refgrad verify --op matmul",
        ops=("matmul", "linear", "lm_head"),
    ),
    Claim(
        "D2.4",
        "Activation-to-Activation Multiplications",
        "In attention, each head of each example is a product of its own: its gradients need no other's.",
        f"query_key and attn_value: {AUTODIFF}; each head's gradient from its own slices alone",
        (
            Check("attn @ value, ∂L/∂attn", "dy @ v.T", _heads("attn_value", "p", "y")),
            Check("attn @ value, ∂L/∂value", "p.T @ dy", _heads("attn_value", "v", "y")),
            Check("query @ key, ∂L/∂query", "dx @ k", _heads("query_key", "q", "x")),
            Check("query @ key, ∂L/∂key", "dx.T @ q", _heads("query_key", "k", "x")),
        ),
        see=("D2.10", "D2.10b"),
        more="refgrad verify --op attn_value",
        ops=("attn_value", "query_key"),
    ),
    Claim(
        "D2.5",
        "Tensor Contractions, FLOPs Analysis",
        "A product of (m, n) and (n, p) takes mnp multiplications and mp(n − 1) additions, about 2mnp.",
        "the count of the product written out as multiplications and a sum; about: within 1%",
        (
            Check("multiplications", "m * n * p", _products("mul")),
            Check("additions", "m * p * (n - 1)", _products("reduce_sum")),
            Check("together", "2 * m * n * p", _both, when="sums", condition=CONVENTIONS["sums"].words),
            Check("about 2mnp", "2 * m * n * p <= (1 + about) * m * p * (2 * n - 1)", _about),
        ),
        see=("D2.23",),
        more="refgrad cost",
        ops=("matmul",),
    ),
    Claim(
        "D2.6",
        TABLE,
        "lm_head's backward pass, two products, costs 4bshV.",
        COUNTED,
        (line("D2.6"),),
        see=("D2.3", "D2.22"),
        more="refgrad verify --op lm_head",
        ops=("lm_head",),
    ),
    _weight("D2.7", "mlp_down"),
    _weight("D2.8", "mlp_up"),
    _weight("D2.9", "attn_out"),
    Claim(
        "D2.10",
        TABLE,
        "attn @ value: (s, d) @ (d, s) and (s, s) @ (s, d) for each head and example, 4b·n_h·s²·d.",
        f"{COUNTED}; {AUTODIFF}",
        (
            Check("1. (s, d) @ (d, s)", "dy @ v.T", _heads("attn_value", "p", "y")),
            Check("2. (s, s) @ (s, d)", "p.T @ dy", _heads("attn_value", "v", "y")),
            line("D2.10"),
        ),
        see=("D2.4",),
        more="refgrad verify --op attn_value",
        ops=("attn_value",),
    ),
    Claim(
        "D2.10b",
        TABLE,
        "query @ key: (s, s) @ (s, d) and (d, s) @ (s, s) for each head and example, 4b·n_h·s²·d.",
        f"{COUNTED}; {AUTODIFF}",
        (
            Check("1. (s, s) @ (s, d)", "dx @ k", _heads("query_key", "q", "x")),
            Check(
                "2. (d, s) @ (s, s)",
                "q.T @ dx",
                _heads("query_key", "k", "x", transposed=True),
                when="as_printed",
                condition="it is read as the gradient of the transposed key, (d, s), which the forward multiplies by; "
                "the key's own, (s, d), is (s, s) @ (s, d)",
            ),
            line("D2.10b"),
        ),
        see=("D2.4",),
        more="refgrad verify --op query_key",
        ops=("query_key",),
    ),
    _weight("D2.11", "qkv_proj"),
)
