"""Does the time of counting a backward pass grow with its layers, and does counting allocate anything?

Counts GPT-2's backward pass at the width of 1.5B (1600, 25 heads, 1024 tokens), unrolled and scanned, from shapes
alone. Unrolled grows linearly with the layers, scanned stays nearly flat; both must find the same FLOPs.

    python experiments/count_time.py
"""

import dataclasses
import resource
import sys
import time
from functools import partial

import jax
import jax.numpy as jnp
from _common import Figure, Result, Table, main, track

from refgrad import cost
from refgrad.models import gpt2
from refgrad.report.figures import series


@dataclasses.dataclass(frozen=True)
class Settings:
    """Depths, the model whose width is taken, tokens."""

    layers: list[int]
    size: str
    sequence: int

    def __post_init__(self) -> None:
        if self.size not in gpt2.SIZES:
            raise ValueError(f"size is {self.size!r}, but must be one of {', '.join(gpt2.SIZES)}")
        if min(self.layers) < 1:
            raise ValueError(f"layers is {self.layers}, but each must be at least 1")


def seconds(settings: Settings, layers: int, scan: bool) -> tuple[float, int]:
    """The better of two runs, and the backward FLOPs counted."""
    config = dataclasses.replace(gpt2.SIZES[settings.size], n_layer=layers)
    ids = jax.ShapeDtypeStruct((1, settings.sequence), jnp.int32)
    best, flops = float("inf"), 0
    for _ in range(2):
        start = time.perf_counter()
        loss = partial(gpt2.loss, config=config, scan=scan)
        flops = cost.count_backward(loss, gpt2.shapes(config), ids, ids).flops
        best = min(best, time.perf_counter() - start)
    return best, flops


def run(settings: Settings) -> Result:
    """Count at every depth, both ways."""
    rows, failures = [], []
    for layers in track(settings.layers, "layers"):
        (unrolled, flops), (scanned, same) = (seconds(settings, layers, scan) for scan in (False, True))
        if flops != same:
            failures.append(f"{layers} layers: {flops:,} FLOPs unrolled, but {same:,} scanned")
        rows.append((layers, unrolled, scanned, flops))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    layers, unrolled, scanned, flops = rows[-1]
    config = dataclasses.replace(gpt2.SIZES[settings.size], n_layer=layers)
    parameters = sum(4 * x.size for x in jax.tree.leaves(gpt2.shapes(config))) / 2**20
    answer = (
        f"At {layers} layers and {flops:,} FLOPs counting takes {unrolled:.2f} s unrolled and {scanned:.2f} s scanned.",
        f"Nothing is allocated: the process peaked at {peak:.0f} MB, the parameters alone are {parameters:,.0f} MB.",
    )

    def paint(axes) -> None:
        for n, (column, label) in enumerate(((1, "layers unrolled"), (2, "layers scanned"))):
            axes.plot([row[0] for row in rows], [row[column] for row in rows], label=label, **series(n))
        axes.set(xlabel="layers", ylabel="time to count the backward pass (s)")
        axes.set_ylim(bottom=0)
        axes.legend()

    alt = (
        f"Two lines over {rows[0][0]} to {layers} layers: unrolled rises to {unrolled:.2f} seconds, "
        f"scanned stays lower, at {scanned:.2f} seconds."
    )
    header = ("layers", "unrolled (s)", "scanned (s)", "FLOPs")
    return Result(answer, Table(header, rows), [Figure("Time to count a backward pass", alt, paint)], failures=failures)


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, Settings, run))
