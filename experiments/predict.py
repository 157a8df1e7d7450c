"""Do predicted step times agree with published ones, when each run is predicted from the others alone?

Every published run whose inputs are complete (`_published.py`) is counted as the program of one of its devices, formed
into regions, and timed by `cost.predict`. Three numbers are fitted, the efficiencies of matrix regions on GPUs and on
TPUs and of all other regions, each time on all runs but the one that is predicted. What is moved along fsdp is
taken as hidden behind computation (those runs compile with asynchronous collectives), everything else as not hidden.
Memory of the fully sharded runs is left open: their program here holds every layer gathered.

    python experiments/predict.py
"""

import dataclasses
import itertools
import statistics
import sys
import time
from typing import Any

import numpy as np
from _common import Figure, Result, Table, main, track
from _published import KERNELS, RUNS, Run

from refgrad.cost.predict import DEVICES, Device, Prediction, predict

OVERLAP = {"fsdp": 1.0}
FITTED = ("matmul, GPU", "matmul, TPU", "memory")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Runs that are predicted, and bounds of the errors."""

    runs: int
    median: float
    worst: float

    def __post_init__(self) -> None:
        if not 4 <= self.runs <= len(RUNS):
            raise ValueError(f"runs is {self.runs}, but must be from 4 to {len(RUNS)}")


class Times:
    """A prediction's regions at full efficiency, so that another efficiency needs no other trace."""

    def __init__(self, run: Run, found: Prediction) -> None:
        device: Device = DEVICES[run.device]
        parts = [part for part in found.parts if part.kind != "collective"]
        rate = device.rate("bfloat16")
        self.matmul = np.array([part.matmul / rate for part in parts])
        self.memory = np.array([part.bytes / device.bandwidth for part in parts])
        self.vector = np.array(
            [part.elementwise / device.vector + part.transcendental / device.transcendental for part in parts]
        )
        self.launch = device.launch * sum(part.times for part in parts)
        self.link, self.hidden = found.link_seconds, found.hidden_seconds
        self.gpu = run.family == "GPU"
        self.run, self.found = run, found

    def seconds(self, fitted: tuple[float, float, float]) -> float:
        """The step at these efficiencies."""
        matmul = self.matmul / fitted[0 if self.gpu else 1]
        busy = np.maximum(np.maximum(matmul, self.memory / fitted[2]), self.vector).sum() + self.launch
        return float(busy + self.link - min(busy, self.hidden))


def fit(rows: list[Times]) -> tuple[float, float, float]:
    """The efficiencies at which the squared logarithms of the ratios are least, on a grid of hundredths."""

    def error(fitted: Any) -> float:
        return sum(np.log(row.seconds(fitted) / row.run.seconds) ** 2 for row in rows)

    best = min(itertools.product(np.linspace(0.5, 1, 11), np.linspace(0.5, 1, 11), np.linspace(0.3, 1, 15)), key=error)
    for step in (0.02, 0.01):
        near = [[x + k * step for k in (-2, -1, 0, 1, 2) if 0.2 <= x + k * step <= 1] for x in best]
        best = min(itertools.product(*near), key=error)
    return (float(best[0]), float(best[1]), float(best[2]))


def predicted(run: Run) -> Times:
    """One run's regions."""
    f, args = run.program()
    found = predict(
        f,
        *args,
        device=run.device,
        mesh={"devices": run.devices},
        collectives=run.exchanged(),
        kernels=KERNELS,
        overlap=OVERLAP,
        donate_argnums=(0, 1),
    )
    return Times(run, found)


def run(settings: Settings) -> Result:
    """Predict each run from the others."""
    start = time.perf_counter()
    rows = [predicted(one) for one in track(list(RUNS[: settings.runs]), "runs")]
    seconds = time.perf_counter() - start
    table, errors = [], []
    for row in rows:
        fitted = fit([other for other in rows if other is not row])
        got, want = row.seconds(fitted), row.run.seconds
        errors.append(abs(got / want - 1))
        found = row.found
        table.append(
            (
                f"{row.run.name}, {row.run.devices} {row.run.device}",
                want,
                got,
                f"{got / want - 1:+.1%}",
                *(f"{share:.2f}" for share in fitted),
                f"{found.matmul_flops / (got * found.peak):.3f}",
                round(found.memory.peak / 1e9, 1) if row.gpu else None,
                row.run.source,
            )
        )
    every = fit(rows)
    answer = [
        f"Of {len(rows)} published runs, each predicted from the others with {len(FITTED)} fitted numbers, the median "
        f"error is {statistics.median(errors):.1%} and the worst {max(errors):.1%}.",
        "Fitted on all: " + ", ".join(f"{name} {share:.2f}" for name, share in zip(FITTED, every, strict=True)) + ".",
        f"All runs were counted and formed into regions in {seconds:.0f} s; nothing was compiled or allocated.",
    ]
    failures = []
    if statistics.median(errors) > settings.median or max(errors) > settings.worst:
        failures.append(f"median error ≤ {settings.median:.0%} and worst ≤ {settings.worst:.0%}")

    def paint(axes: Any) -> None:
        for name, marker in (("GPU", "o"), ("TPU", "s")):
            some = [(r[1], r[2]) for r, row in zip(table, rows, strict=True) if row.run.family == name]
            axes.loglog([x for x, _ in some], [y for _, y in some], marker, label=name)
        ends = [min(r[1] for r in table), max(r[1] for r in table)]
        axes.loglog(ends, ends, "-", color="gray", label="equal")
        axes.set(xlabel="published step (s)", ylabel="predicted step (s)")
        axes.legend()

    alt = f"Predicted over published step times of {len(rows)} runs, close to the diagonal."
    header = (
        "run",
        "published (s)",
        "predicted (s)",
        "error",
        *(f"efficiency: {name}" for name in FITTED),
        "HFU",
        "memory (GB)",
        "source",
    )
    return Result(
        answer, Table(header, table), [Figure("Published and predicted steps", alt, paint)], failures=failures
    )


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, Settings, run))
