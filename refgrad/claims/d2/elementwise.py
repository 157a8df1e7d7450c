"""D2.15 to D2.17: GELU, the scaling of attention, the residual connection."""

import ast
from collections.abc import Collection, Iterator
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

from refgrad import cost
from refgrad.claims._formula import evaluate
from refgrad.claims._ledger import Case, Check, deferred
from refgrad.claims._oracle import gradients, normal, weighted
from refgrad.claims._rows import claims
from refgrad.claims.d2._cases import (
    CONVENTIONS,
    PRINTED,
    SIZES,
    Condition,
    at,
    backward,
    gradient,
    line,
    pulled,
    settings,
)
from refgrad.ops import TABLE, operations
from refgrad.ops.gelu import A, C

OPS = operations("derived")
# As printed, line by line, beside which D2 writes 1, 1, 3, 1, 1, 1, 1, 2, 4, 2 and 2 FLOPs.
LISTING = "; ".join(
    (
        "x_sq = x * x",
        "x_cube = x_sq * x",
        "inner = a * (x + b * x_cube)",
        "tanh_inner = tanh(inner)",
        "left = 0.5 * x",
        "right = 1 + tanh_inner",
        "left_derivative = 0.5 * right",
        "tanh_derivative = 1 - tanh_inner * tanh_inner",
        "inner_derivative = a * (1 + 3 * b * x_sq)",
        "right_derivative = left * tanh_derivative * inner_derivative",
        "incoming_gradient * (left_derivative + right_derivative)",
    )
)
CONSTANTS = {"a": A, "b": C}
LISTED = {
    "constants": Condition("the product of constants 3b is computed anew for each element", "3b computed once"),
    "transcendentals": CONVENTIONS["transcendentals"],
}
ALONE = Condition(
    "x is the addition's operand alone (where x feeds F too, the gradients of both meet and are added)", "x feeds F"
)


@cache
def listing_flops(elements: int, conventions: tuple[str, ...]) -> int:
    """FLOPs of GELU's listing: as traced, and with its constants and its tanh by D2's conventions."""
    x = jax.ShapeDtypeStruct((elements,), jnp.float64)

    def run(x: Any, dy: Any) -> Any:
        return evaluate(LISTING, {**CONSTANTS, "x": x, "incoming_gradient": dy, "tanh": jnp.tanh})

    counted = cost.count(run, x, x)
    flops = counted.flops + (counted.transcendental if "transcendentals" in conventions else 0)
    return flops + (elements * _on_constants(LISTING) if "constants" in conventions else 0)


def _on_constants(listing: str) -> int:
    """Count the listing's operations whose operands are all constants."""

    def constant(node: ast.AST) -> bool:
        return all(name.id in CONSTANTS for name in ast.walk(node) if isinstance(name, ast.Name))

    return sum(isinstance(node, ast.BinOp) and constant(node) for node in ast.walk(ast.parse(listing)))


def gelu() -> Iterator[Case]:
    """GELU's cases, with the document's a and b (not a batch here)."""
    for values, grads in pulled("gelu", "y"):
        known = {**CONSTANTS, "x": values["x"], "dy": values["dy"], "incoming_gradient": values["dy"]}
        yield Case(at(values, "b", "s", "i"), known, grads["x"])


def _listed(n: int, met: Collection[str]) -> int:
    dims = SIZES[n]
    return listing_flops(dims["b"] * dims["s"] * 4 * dims["h"], tuple(met))


@deferred
def stream(term: str) -> Iterator[Case]:
    """y = x + F(x) with a linear F: the gradient of x, or of F(x), by the addition alone and through F."""
    for n, dims in enumerate(SIZES):
        b, s, h = dims["b"], dims["s"], dims["h"]
        x, f, W, dy = normal(n, b, s, h), normal(n + 3, b, s, h), normal(n + 6, h, h), normal(n + 9, b, s, h)
        values = {"dy": dy, "W": W}
        dx, df = gradients(weighted(OPS.residual, dy), x, f)
        yield Case(at(dims, "b", "s", "h"), {**values, "alone": True}, {"x": dx, "F": df}[term])
        if term == "x":
            both = gradients(weighted(lambda x, W=W: OPS.residual(x, OPS.matmul(x, W)), dy), x)
            yield Case(f"{at(dims, 'b', 's', 'h')} ({ALONE.unmet})", {**values, "alone": False}, both[0])


def _meeting(n: int, met: Collection[str]) -> int:
    """FLOPs of the residual connection: its rule alone, or what it adds to F's own where x feeds F."""
    if "alone" in met:
        return backward("residual", n)[0].flops
    x, _ = TABLE["residual"].shapes(SIZES[n], jnp.float64)
    whole = cost.count_backward(lambda x: OPS.residual(x, OPS.gelu(x)), x)
    return whole.flops - cost.count_backward(OPS.gelu, x).flops


as_listed = Check("the listing", LISTING, gelu)
listed_flops = settings("FLOPs of the listing", str(PRINTED["D2.15"].flops), _listed, LISTED)
meeting_flops = settings("FLOPs", str(PRINTED["D2.17"].flops), _meeting, {"alone": ALONE})


CLAIMS = claims(__name__, gradient=gradient, line=line)
