"""Bytes kept from forward to backward: one block by rules, by autodiff, by remat, each derived and measured."""

import dataclasses
from typing import Any

import jax
import sympy

from refgrad import cost
from refgrad._text import Table
from refgrad.models import gpt2
from refgrad.models.gpt2_costs import BLOCK_RESIDUALS
from refgrad.ops import TABLE
from refgrad.symbols import evaluate

WAYS: dict[str, dict[str, Any]] = {"rules": {}, "autodiff": {"rules": "autodiff"}, "remat": {"remat": True}}
# D3.13: a product of N × D and D × M, whose Jacobian by its N × D argument would stand explicitly.
JACOBIAN = {"N": 64, "D": 4096, "M": 4096}


@dataclasses.dataclass(frozen=True)
class BlockResult:
    """One way of differentiating: bytes that a block keeps, derived and measured, and those of the whole model."""

    way: str
    formula: sympy.Expr
    derived: int
    measured: int
    whole: int

    @property
    def unexplained(self) -> int:
        """Bytes by which the measured differ from the derived."""
        return abs(self.measured - self.derived)

    def data(self) -> dict[str, Any]:
        """The result as plain data for JSON."""
        return dataclasses.asdict(self) | {"formula": str(self.formula), "unexplained": self.unexplained}


def block_residuals(way: str, config: gpt2.Config, batch: int, sequence: int) -> BlockResult:
    """Residual bytes per block, from shapes in float32: the difference between a two-layer and a one-layer model."""

    def kept(n_layer: int, scan: bool = False) -> int:
        size = dataclasses.replace(config, n_layer=n_layer)
        program = gpt2.abstract_loss(size, batch, sequence, stacked=scan, scan=scan, **WAYS[way])
        return cost.residuals(*program).bytes

    formula = BLOCK_RESIDUALS[way]
    derived = evaluate(formula, config.dims(batch, sequence))
    with jax.enable_x64(False):
        return BlockResult(way, formula, derived, kept(2) - kept(1), kept(config.n_layer, scan=True))


def block_table(results: list[BlockResult]) -> Table:
    """One line a way of differentiating."""
    header = ["a block's backward by", "kept, derived", "kept, measured", "unexplained", "whole model", "bytes"]
    rows = [
        [r.way, f"{r.derived:,}", f"{r.measured:,}", str(r.unexplained), f"{r.whole:,}", sympy.factor(r.formula)]
        for r in results
    ]
    return Table(header, rows)


def jacobian_text() -> str:
    """The bytes of a product's explicit Jacobian against those that its rule keeps (D3.13)."""
    n, d, m = JACOBIAN.values()
    elements = (n * m) * (n * d)
    rule = TABLE["matmul"].residuals
    kept = evaluate(rule, {"b": n, "s": 1, "i": d, "o": m, "item": 4})
    return (
        f"({n} × {d}) @ ({d} × {m}): the explicit Jacobian by the first factor has (N·M)·(N·D) = {elements:,} elements,"
        f"\n{4 * elements:,} bytes; the rule keeps both factors, {rule} = {kept:,} bytes: 1/{4 * elements // kept:,}"
    )


def plan(config: gpt2.Config, batch: int, sequence: int) -> cost.Memory:
    """XLA's own plan of the loss's forward and backward pass, which it compiles."""
    with jax.enable_x64(False):
        return cost.memory(*gpt2.abstract_loss(config, batch, sequence))
