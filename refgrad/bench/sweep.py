"""One axis varied, the rest held: the step over batch or layers, the model's parts over length."""

import dataclasses
from collections.abc import Callable, Sequence

from refgrad.bench import parts
from refgrad.bench.contenders import Workload
from refgrad.bench.run import ContenderRow, check_memory, measure

POINTS = {"batch": (1, 2, 4, 8), "layers": (2, 12, 24), "length": (512, 1024, 2048, 4096, 8192)}
NAMES = ("autodiff-scan", "fused", "fused-scan")
LONG = ("attention", "block")


@dataclasses.dataclass(frozen=True)
class SweepPoint:
    """The contenders' rows at one value of the axis."""

    value: int
    rows: Sequence[ContenderRow]


def at(work: Workload, axis: str, value: int) -> Workload:
    """`work` with one axis changed; longer sequences have the positions that they need."""
    if axis == "batch":
        return dataclasses.replace(work, batch=value)
    if axis == "layers":
        return dataclasses.replace(work, config=dataclasses.replace(work.config, n_layer=value))
    config = dataclasses.replace(work.config, n_positions=max(value, work.config.n_positions))
    return dataclasses.replace(work, sequence=value, config=config)


def steps(
    work: Workload,
    axis: str,
    points: Sequence[int],
    names: Sequence[str],
    rounds: int,
    keep_temporaries: bool,
    report: Callable[[str], None],
) -> list[SweepPoint]:
    """The named contenders beside the baseline at every point of "batch" or "layers".

    Raises ValueError where the largest does not fit into memory, before anything is measured, and as `measure` does.
    """
    check_memory(at(work, axis, max(points)))
    return [
        SweepPoint(
            value,
            measure(
                at(work, axis, value),
                names,
                rounds,
                keep_temporaries,
                lambda text, v=value: report(f"{axis} {v}: {text}"),
            ),
        )
        for value in points
    ]


def lengths(
    work: Workload, points: Sequence[int], rounds: int, keep_temporaries: bool, report: Callable[[str], None]
) -> list[parts.PartRow]:
    """Attention and the whole block, forward and backward, at every length, one sequence."""
    one = dataclasses.replace(work, batch=1)
    return [
        row
        for value in points
        for row in parts.measure(at(one, "length", value), LONG, rounds, keep_temporaries, report)
    ]
