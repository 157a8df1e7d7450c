"""In a check, where does the time go, and how long does it take beside `jax.test_util.check_grads`?

Each operation's check is profiled in this process: the seconds that JAX spends in tracing, lowering and compiling, and
how many programs it compiles (`jax.monitoring` counts them). The rest is the check itself, exact truth included. Then a
full `check` of layer norm and gelu stands against `check_grads(order=2, modes=["rev"])` on the same rule, each in
processes of their own that compile everything again, taking turns.

    python experiments/verify_time.py
    python experiments/verify_time.py --set rounds=5
"""

import collections
import dataclasses
import statistics
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
from _common import Figure, Result, Table, main, track

from refgrad import _machine
from refgrad.models import gpt2
from refgrad.ops import TABLE
from refgrad.report import operations
from refgrad.report.figures import COLORS

EVENTS = {
    "/jax/core/compile/jaxpr_trace_duration": "tracing",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowering",
    "/jax/core/compile/backend_compile_duration": "compiling",
}
PARTS = (*EVENTS.values(), "the rest")
COLD = {
    "layer_norm": "from refgrad.ops import layer_norm\nf, args = layer_norm, (x, x[0] + 1, x[1], 1e-5)",
    "gelu": "from refgrad.ops import gelu\nf, args = gelu, (x,)",
}
PROCESS = """
import time, jax
x = jax.random.normal(jax.random.key(0), (4, 16))
{subject}
from refgrad import verify
from jax.test_util import check_grads
start = time.process_time()
{call}
print(time.process_time() - start)
"""
CALLS = {
    "check": "assert verify.check(f, *args).ok",
    "check_grads": "check_grads(lambda *a: f(*a, *args[3:]), args[:3], order=2, modes=['rev'])",
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The operations that are profiled, their dtypes, turns of each cold process."""

    operations: list[str]
    dtypes: list[str]
    rounds: int

    def __post_init__(self) -> None:
        for name in self.operations:
            if name not in TABLE:
                raise ValueError(f"operations holds {name!r}, but must hold names such as {', '.join(list(TABLE)[:3])}")
        if self.rounds < 1:
            raise ValueError(f"rounds is {self.rounds}, but must be at least 1")


def profiled(name: str, dtypes: list[str]) -> tuple[dict[str, float], int]:
    """The seconds of each part of an operation's check as `refgrad verify` makes it, and the programs compiled."""
    seconds: dict[str, float] = collections.defaultdict(float)
    programs: collections.Counter[str] = collections.Counter()

    def heard(event: str, duration_secs: float, **_: str | int) -> None:
        if event in EVENTS:
            seconds[EVENTS[event]] += duration_secs
            programs[EVENTS[event]] += 1

    dims = operations.dimensions(gpt2.Config(), 2, 24)
    jax.monitoring.register_event_duration_secs_listener(heard)
    start = time.perf_counter()
    with jax.enable_x64(True):
        operations.verify_operation(name, dims, dtypes)
    whole = time.perf_counter() - start
    jax.monitoring.unregister_event_duration_listener(heard)
    return {**seconds, "the rest": max(0.0, whole - sum(seconds.values()))}, programs["compiling"]


def cold(subject: str, call: str) -> float:
    """Seconds of processor time of one call in a new process."""
    script = PROCESS.format(subject=COLD[subject], call=CALLS[call])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return float(done.stdout)


def run(settings: Settings) -> Result:
    """Profile the operations, then take turns between the two checks."""
    jnp.zeros(()).block_until_ready()  # the device starts
    rows = []
    for name in track(settings.operations, "operations"):
        parts, programs = profiled(name, settings.dtypes)
        rows.append((name, *(parts.get(part, 0.0) for part in PARTS), programs))
    sums = [sum(column) for column in list(zip(*rows, strict=True))[1:]]
    answer = [
        f"{len(rows)} checks took {sum(sums[:-1]):.1f} s and compiled {sums[-1]:,} programs: "
        + ", ".join(f"{part} {100 * s / sum(sums[:-1]):.0f} %" for part, s in zip(PARTS, sums, strict=False))
        + f" ({_machine.processor()})."
    ]
    for subject in COLD:
        turns = [{call: cold(subject, call) for call in CALLS} for _ in track(range(settings.rounds), subject)]
        medians = {call: statistics.median(turn[call] for turn in turns) for call in CALLS}
        ratio = statistics.median(turn["check"] / turn["check_grads"] for turn in turns)
        answer.append(
            f"{subject} at 4 × 16, cold: check {medians['check']:.2f} s of processor time, check_grads "
            f"{medians['check_grads']:.2f} s, ratio {ratio:.2f} (median of {settings.rounds})."
        )
    longest = sorted(rows, key=lambda row: -sum(row[1:-1]))[:12]

    def paint(axes) -> None:
        left = [0.0] * len(longest)
        for n, part in enumerate(PARTS):
            values = [row[1 + n] for row in longest]
            axes.barh([row[0] for row in longest], values, left=left, color=COLORS[n], label=part)
            left = [a + b for a, b in zip(left, values, strict=True)]
        axes.invert_yaxis()
        axes.set(xlabel="time of a check in all dtypes (s)", ylabel="operation")
        axes.legend()

    alt = f"Bars of the {len(longest)} longest checks; {longest[0][0]} takes {sum(longest[0][1:-1]):.1f} seconds."
    header = ("operation", *(f"{part} (s)" for part in PARTS), "programs")
    return Result(answer, Table(header, rows), [Figure("Where the time of a check goes", alt, paint)])


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, Settings, run))
