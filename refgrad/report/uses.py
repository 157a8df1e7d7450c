"""Each use of an operation in GPT-2: the document's FLOPs, the derived, the counted; bytes moved and bytes kept."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from refgrad import cost
from refgrad._text import Table
from refgrad.models.gpt2_costs import LAYER, Use
from refgrad.ops import TABLE
from refgrad.report.cost import Pass, price_row
from refgrad.symbols import evaluate

NONE = "–"  # where the document has no formula
ITEM = {"item": 4, "a": 4}  # bytes of an element in float32


@dataclasses.dataclass(frozen=True)
class UseResult:
    """One use at given dimensions; `kept` is (derived, measured) residual bytes."""

    use: Use
    times: int
    document: int
    forward: Pass
    backward: Pass
    kept: tuple[int, int]

    @property
    def unexplained(self) -> int:
        """FLOPs and transcendentals over, of both passes, and residual bytes over."""
        derived, measured = self.kept
        return self.forward.unexplained + self.backward.unexplained + abs(measured - derived)

    def data(self) -> dict[str, Any]:
        """The result as plain data for JSON."""
        return {
            "scope": self.use.scope,
            "operation": self.use.op,
            "times": self.times,
            "document": self.document,
            "forward": self.forward.count.total._asdict(),
            "backward": self.backward.count.total._asdict(),
            "residual_bytes": dict(zip(("derived", "measured"), self.kept, strict=True)),
            "unexplained": self.unexplained,
        }


def price_use(use: Use, dims: Mapping[str, int]) -> UseResult:
    """Price one use at the model's dimensions, from shapes alone, in float32."""
    row = TABLE[use.op]
    sizes = use.sizes(dims)
    forward, backward = (price_row(row, name, sizes) for name in ("forward", "backward"))
    with jax.enable_x64(False):
        measured = cost.residuals(row.bound(sizes), *row.shapes(sizes, jnp.float32))
    kept = evaluate(row.residuals, {**sizes, **ITEM}), measured.bytes + measured.argument_bytes
    times = dims["n_L"] if use in LAYER else 1
    return UseResult(use, times, evaluate(row.published_flops, sizes), forward, backward, kept)


def use_table(results: list[UseResult]) -> Table:
    """One line a use, its backward pass once; all of `times` in the model cost so."""
    header = ["scope", "operation", "×", "document", "counted", "− document", "transc.", "bytes", "fl/byte"]
    rows = []
    for result in results:
        counted = result.backward.count
        rows.append(
            [
                result.use.scope,
                result.use.op,
                str(result.times),
                f"{result.document:,}" if result.document else NONE,
                f"{counted.flops:,}",
                f"{counted.flops - result.document:+,}" if result.document else NONE,
                f"{counted.transcendental:,}",
                f"{counted.bytes:,}",
                f"{counted.intensity:.2f}",
                *(f"{n:,}" for n in result.kept),
                str(result.unexplained),
            ]
        )
    return Table([*header, "kept, derived", "measured", "unexplained"], rows)
