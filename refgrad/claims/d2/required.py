"""D2.25: the tensors that each operation's backward pass requires by D2, beside those that its rule keeps.

The upstream gradient, which D2 lists with them, is kept by no forward pass and left out on both sides.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from refgrad import cost
from refgrad.claims._ledger import Case, Check, Claim, deferred
from refgrad.claims._oracle import normal
from refgrad.claims.d2._cases import PRINTED, SIZES, at
from refgrad.jaxpr.scaffold import scaffold
from refgrad.models import gpt2_costs
from refgrad.ops import TABLE

NOISE = 1e-9  # a change up to this, of values around 1 in float64, is none
PRODUCTS = "Tensor Contractions, table of operations"


class Required(NamedTuple):
    """One operation: its place in D2, its name and its use in the model; the tensors listed, their elements as a
    formula, and which of the operation's arguments are among them; where the rule keeps others, those and theirs."""

    place: str
    name: str
    use: gpt2_costs.Use
    tensors: str
    elements: str
    arguments: tuple[str, ...] = ()
    kept: str = ""
    right: str = ""


LINES = (
    Required(PRODUCTS, "lm_head", PRINTED["D2.6"].use, "input and weight", "b * s * h + h * V", ("x", "E")),
    Required(PRODUCTS, "mlp_down", PRINTED["D2.7"].use, "input and weight", "b * s * 4 * h + 4 * h * h", ("x", "w")),
    Required(PRODUCTS, "mlp_up", PRINTED["D2.8"].use, "input and weight", "b * s * h + h * 4 * h", ("x", "w")),
    Required(PRODUCTS, "attn_out", PRINTED["D2.9"].use, "input and weight", "b * s * h + h * h", ("x", "w")),
    Required(PRODUCTS, "attn @ value", PRINTED["D2.10"].use, "attn and value", "b * n_h * (s * s + s * d)", ("p", "v")),
    Required(PRODUCTS, "query @ key", PRINTED["D2.10b"].use, "query and key", "b * n_h * 2 * s * d", ("q", "k")),
    Required(PRODUCTS, "qkv_proj", PRINTED["D2.11"].use, "input and weight", "b * s * h + h * 3 * h", ("x", "w")),
    Required("Softmax, FLOPs Analysis", "softmax", PRINTED["D2.12"].use, "output", "b * n_h * s * s"),
    Required("Log-softmax Gradients, FLOPs Analysis", "log-softmax", PRINTED["D2.13"].use, "output", "b * s * V"),
    Required(
        "LayerNorm, FLOPs Analysis",
        "layer norm",
        PRINTED["D2.14"].use,
        "input, means, variances, γ and β",
        "b * s * h + 2 * b * s + 2 * h",
        ("x", "gamma", "beta"),
        "x̂, 1/√(σ² + ε) and γ",
        "b * s * h + b * s + h",
    ),
    Required("GELU, FLOPs Analysis", "GELU", PRINTED["D2.15"].use, "input", "b * s * 4 * h", ("x",)),
)


@deferred
def _bytes(use: gpt2_costs.Use) -> Iterator[Case]:
    """Cases whose truth is the bytes that the rule keeps, arguments included, in float64."""
    for dims in SIZES:
        sizes, row = use.sizes(dims), TABLE[use.op]
        kept = cost.residuals(row.bound(sizes), *row.shapes(sizes, jnp.float64))
        yield Case(at(dims), dims, kept.bytes + kept.argument_bytes)


@cache
def _changes(op: str) -> tuple[dict[str, float], ...]:
    """Argument → the change of autodiff's gradients when that argument alone is another, at each size."""
    row, found = TABLE[op], []
    for seed, dims in enumerate(SIZES):
        statics = row.static_values(dims)
        args, others = ([np.asarray(array) for array in row.sample(n, dims, jnp.float64)] for n in (seed, seed + 3))

        def plain(*arrays: Any, statics: tuple[Any, ...] = statics) -> Any:
            return row.op.fun(*arrays, *statics)

        shape = jax.eval_shape(plain, *args).shape
        pull = scaffold(lambda ct, *args, plain=plain: jax.vjp(plain, *args)[1](ct))
        ct = normal(seed + 6, *shape)
        here, moved = pull(ct, *args), {}
        for i, name in enumerate(row.arguments):
            there = pull(ct, *args[:i], others[i], *args[i + 1 :])
            moved[name] = max(float(np.max(np.abs(np.subtract(g, w)))) for g, w in zip(here, there, strict=True))
        found.append(moved)
    return tuple(found)


@deferred
def _changed(op: str, argument: str) -> Iterator[Case]:
    """Change of the gradients when an argument's value changes."""
    for dims, changes in zip(SIZES, _changes(op), strict=True):
        yield Case(at(dims), {"change": changes[argument], "noise": NOISE})


def _needed(op: str, argument: str) -> Check:
    says = f"{argument} is needed: with another one a gradient changes"
    return Check(says, "change > noise", _changed(op, argument), corrected="change <= noise")


def _claim(number: int, line: Required) -> Claim:
    says = f"bytes (the rule keeps {line.kept})" if line.kept else "bytes"
    right = f"8 * ({line.right})" if line.right else ""
    return Claim(
        f"D2.25.{number}",
        line.place,
        f"{line.name}: beside the upstream gradient, the backward pass requires {line.tensors}.",
        "the bytes that the rule keeps, in float64 (8 bytes an element), from the traced program; the gradients by "
        "autodiff when one argument alone is replaced",
        (
            Check(says, f"8 * ({line.elements})", _bytes(line.use), corrected=right),
            *(_needed(line.use.op, argument) for argument in line.arguments),
        ),
        see=("D1.9", "D2.14") if line.kept else ("D1.9",),
        more=f"refgrad verify --op {line.use.op}",
        ops=(line.use.op,),
    )


CLAIMS = tuple(_claim(number, line) for number, line in enumerate(LINES, 1))
