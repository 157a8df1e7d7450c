"""A run of the bench: every contender beside the baseline, and what their times say."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from refgrad import cost
from refgrad.bench.contenders import BASELINE, CONTENDERS, Workload
from refgrad.bench.machine import memory
from refgrad.bench.pairs import ContenderPair, run_pair
from refgrad.models import gpt2

STATE_BYTES = 16  # a parameter, its gradient and AdamW's two moments, in float32


@dataclasses.dataclass(frozen=True)
class ContenderRow:
    """One contender's figures. Times are in seconds, memory in bytes; None marks a figure that it lacks."""

    name: str
    label: str
    dtype: str
    ratio: float
    """Median seconds over the baseline's of the same pair."""
    spread: tuple[float, float]
    """The least and largest ratio of two neighbouring turns."""
    seconds: float
    tokens_per_second: float
    flops_per_second: float
    """The document's FLOPs of one step (derived, nothing recomputed) over its seconds."""
    temporaries: int | None
    temporaries_ratio: float | None
    peak: int
    trace: float | None
    compile: float | None
    faults: int
    roofline: float | None
    """The share of the roofline: its ratio over this one's."""


def check_memory(work: Workload) -> None:
    """Raise ValueError where two training states do not fit into the memory that is free, before any is made."""
    parameters = work.config.parameters
    needed, (_, free) = 2 * STATE_BYTES * parameters, memory()
    if needed > free:
        raise ValueError(
            f"a baseline and a contender of {parameters:,} parameters hold {needed / 1e9:.1f} GB of state together, "
            f"but {free / 1e9:.1f} GB are free: take a smaller --config, or experiments/train_1558m.py for one alone"
        )


def step_flops(work: Workload) -> int:
    """FLOPs of the forward and backward pass by the document's rules, from abstract values."""
    program = gpt2.abstract_loss(work.config, work.batch, work.sequence, stacked=True, scan=True)
    return cost.count(*program).flops + cost.count_backward(*program).flops


def measure(
    work: Workload,
    names: Sequence[str],
    rounds: int,
    keep_temporaries: bool,
    report: Callable[[str], None],
    save: Callable[[list[ContenderRow]], None] = lambda rows: None,
) -> list[ContenderRow]:
    """Pair each named contender with the baseline, in turn; shares of the roofline need it among the named.

    `save` is given the rows so far after every pair, so that a run cut short has not measured for nothing.

    Raises ChildProcessError where a contender fails, ValueError where it computes another loss than the baseline.
    """
    flops, sent = step_flops(work), {**work.data(), "keep_temporaries": keep_temporaries}
    pairs: dict[str, ContenderPair] = {}
    for name in names:
        pairs[name] = run_pair(name, sent, rounds, CONTENDERS[name].dtype, report)
        save(_rows(pairs, work, flops))
    return _rows(pairs, work, flops)


def _rows(pairs: dict[str, ContenderPair], work: Workload, flops: int) -> list[ContenderRow]:
    """The baseline's row, of the pair in which it took its median time, and each contender's."""
    floors = {CONTENDERS[name].dtype: pair.ratio for name, pair in pairs.items() if name.startswith("roofline")}
    baseline = sorted(pairs.values(), key=lambda pair: pair.baseline.median)[len(pairs) // 2]
    rows = [_row(baseline, baseline.baseline, BASELINE, work, flops, floors)]
    return rows + [_row(pair, pair.contender, name, work, flops, floors) for name, pair in pairs.items()]


def _row(
    pair: ContenderPair, side: Any, name: str, work: Workload, flops: int, floors: dict[str, float]
) -> ContenderRow:
    contender, itself = CONTENDERS[name], name == BASELINE
    ratio = 1.0 if itself else pair.ratio
    temporaries, reference = side.built["temporaries"], pair.baseline.built["temporaries"]
    floor = floors.get(contender.dtype)
    return ContenderRow(
        name=name,
        label=contender.label,
        dtype=contender.dtype,
        ratio=ratio,
        spread=(1.0, 1.0) if itself else pair.spread,
        seconds=side.median,
        tokens_per_second=work.batch * work.sequence / side.median,
        flops_per_second=flops / side.median,
        temporaries=temporaries,
        temporaries_ratio=temporaries / reference if temporaries and reference else None,
        peak=side.peak,
        trace=side.built["trace_s"],
        compile=side.compile,
        faults=side.faults,
        roofline=floor / ratio if floor else None,
    )
