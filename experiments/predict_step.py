"""Does a GPT-2 step fit on eight H100, how long would it take, and what limits it?

Four sizes, 64 × 1024 tokens on each device, in bfloat16: plain data parallelism and ZeRO-1, with and without blocks
recomputed. Predicted from the counted program by `cost.predict`; nothing is compiled, run or allocated.

    python experiments/predict_step.py
"""

import dataclasses
import itertools
import sys
from typing import Any

from _common import Figure, Result, Table, main, track
from _published import KERNELS, data_parallel, llm_c, zero_1

from refgrad.cost.predict import DEVICES, Prediction, predict
from refgrad.models import gpt2
from refgrad.report.figures import series


@dataclasses.dataclass(frozen=True)
class Settings:
    """Device, sizes, sequences on each device at once."""

    device: str
    sizes: list[str]
    batch: int

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise ValueError(f"device is {self.device!r}, but must be one of {', '.join(DEVICES)}")
        for size in self.sizes:
            if size not in gpt2.SIZES:
                raise ValueError(f"sizes holds {size!r}, but must be of {', '.join(gpt2.SIZES)}")
        if self.batch < 1:
            raise ValueError(f"batch is {self.batch}, but must be at least 1")


def predicted(settings: Settings, size: str, zero: bool, remat: bool) -> Prediction:
    """One step of one of eight devices."""
    f, args = llm_c(size, settings.batch, 1, remat, 8 if zero else 1)
    return predict(
        f,
        *args,
        device=settings.device,
        mesh={"data": 8},
        collectives=(zero_1 if zero else data_parallel)(size),
        kernels=KERNELS,
        donate_argnums=(0, 1),
    )


def bounds(found: Prediction) -> dict[str, float]:
    """Share of the step by what bounds its parts."""
    seconds: dict[str, float] = {}
    for part in found.parts:
        seconds[part.bound] = seconds.get(part.bound, 0.0) + part.seconds
    return {name: seconds[name] / found.seconds for name in sorted(seconds, key=lambda name: -seconds[name])}


def run(settings: Settings) -> Result:
    """Predict every combination."""
    useful: dict[tuple[str, bool], int] = {}  # matrix FLOPs of the step in which no block is recomputed
    rows, ways = [], list(itertools.product(settings.sizes, (False, True), (False, True)))
    for size, zero, remat in track(ways, "steps"):
        found = predicted(settings, size, zero, remat)
        flops = useful.setdefault((size, zero), found.matmul_flops)
        rows.append(
            (
                size,
                "ZeRO-1" if zero else "data parallel",
                "yes" if remat else "no",
                found.seconds,
                flops / (found.seconds * found.peak),
                found.hfu,
                found.memory.peak / 1e9,
                "fits" if found.fits else "does not fit",
                ", ".join(f"{name} {share:.0%}" for name, share in bounds(found).items()),
            )
        )
    fitting = [row for row in rows if row[7] == "fits"]
    answer = [
        f"Of {len(rows)} ways to take a step of {settings.batch} × 1024 tokens on each of eight {settings.device}, "
        f"{len(fitting)} fit; the highest MFU among them is {max((row[4] for row in fitting), default=0.0):.2f}."
    ]
    header = ("model", "devices share", "recomputed", "step (s)", "MFU", "HFU", "memory (GB)", "verdict", "bound by")

    def paint(axes: Any) -> None:
        for n, row in enumerate(rows):
            axes.barh(n, row[6], color=series(0 if row[7] == "fits" else 1)["color"])
        axes.set_yticks(range(len(rows)), [f"{row[0]} {row[1]}, {row[2]}" for row in rows], fontsize=6)
        axes.axvline(DEVICES[settings.device].memory / 1e9, color="gray")
        axes.set(xlabel="memory of one device (GB)", ylabel="model, devices share, recomputed")

    alt = f"Memory of {len(rows)} steps; {len(fitting)} stay below the device's."
    return Result(answer, Table(header, rows), [Figure("Memory of a step", alt, paint)])


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, Settings, run))
