"""Costs of a small network: the rows of its operations at the network's widths, added up."""

from collections.abc import Iterable, Mapping

import sympy

from refgrad.ops import TABLE, OpCost
from refgrad.symbols import SYMBOLS, B, b, s

Width = sympy.Expr | int


def priced(name: str, **widths: Width) -> tuple[OpCost, OpCost]:
    """(forward, backward) of an operation over B examples (unless `b` says otherwise), its row taken at `widths`."""
    spec = TABLE[name]
    sizes = {b: B, s: 1, **{SYMBOLS[symbol]: width for symbol, width in widths.items()}}
    forward, backward = (
        OpCost(*(sympy.sympify(part).subs(sizes, simultaneous=True) for part in cost))
        for cost in (spec.forward, spec.backward)
    )
    return forward, backward


def total(parts: Iterable[tuple[OpCost, OpCost]], saved: Width = 0) -> Mapping[str, OpCost]:
    """The sums of such costs, "forward" and "backward", less the FLOPs `saved` on gradients that nobody asks for."""
    forward, backward = (OpCost(*map(sum, zip(*costs, strict=True))) for costs in zip(*parts, strict=True))
    backward = backward._replace(flops=backward.flops - saved)
    return {name: OpCost(*map(sympy.expand, cost)) for name, cost in (("forward", forward), ("backward", backward))}
