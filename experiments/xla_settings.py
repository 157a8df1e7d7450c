"""Does a setting of XLA's CPU backend make GPT-2's products, or its training step, faster on this machine?

Each setting runs in a process of its own, since XLA reads its flags once; the processes take turns, and every other
round goes backwards. A setting helps if every round saves time with it. A version of XLA that does not know a flag ends
the process, which is shown as refused.

    python experiments/xla_settings.py
"""

import contextlib
import dataclasses
import os
import statistics
import sys
from collections.abc import Iterator
from typing import Any

from _common import Figure, Result, Table, main, track
from _model import ModelSettings

from refgrad import _machine
from refgrad.bench.contenders import CONTENDERS, Workload
from refgrad.bench.process import Process
from refgrad.report.figures import COLORS, legend_below

DEFAULTS = "defaults"
XLA_SETTINGS = {
    DEFAULTS: "",
    "without YNNPACK": "--xla_cpu_experimental_ynn_fusion_type=invalid",
    "without YNNPACK and XNNPACK": "--xla_cpu_experimental_ynn_fusion_type=invalid --xla_cpu_use_xnnpack=false",
    "oneDNN for every product": (
        "--xla_cpu_experimental_onednn_custom_call=true --xla_cpu_use_onednn=false "
        "--xla_cpu_experimental_ynn_fusion_type=invalid --xla_cpu_use_xnnpack=false "
        "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitter"
    ),
    "oneDNN's products and fusions": (
        "--xla_cpu_experimental_onednn_custom_call=true --xla_cpu_experimental_onednn_fusion_type=dot"
    ),
    "fast runtime": "--xla_cpu_opt_preset=FAST_RUNTIME",
}


@dataclasses.dataclass(frozen=True)
class Settings(ModelSettings):
    """The model, the bench's contenders, and the gain that counts."""

    contenders: list[str]
    gain: float

    @property
    def work(self) -> Workload:
        """The step's sizes."""
        return Workload(self.config, self.batch, self.sequence)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.contenders:
            if name not in CONTENDERS:
                raise ValueError(f"contenders holds {name!r}, but must hold names such as {', '.join(CONTENDERS)}")


@contextlib.contextmanager
def xla_flags(flags: str) -> Iterator[None]:
    """Add the flags to those that a process started inside the block reads."""
    before = os.environ.get("XLA_FLAGS")
    os.environ["XLA_FLAGS"] = f"{before or ''} {flags}".strip()
    try:
        yield
    finally:
        if before is None:
            del os.environ["XLA_FLAGS"]
        else:
            os.environ["XLA_FLAGS"] = before


def measured(contender: str, work: Workload, rounds: int) -> dict[str, list[float]]:
    """Seconds of the contender's step in each round, by setting; none for a setting that XLA refuses."""
    seconds: dict[str, list[float]] = {name: [] for name in XLA_SETTINGS}
    request = {**work.data(), "contender": contender, "keep_temporaries": True}
    with contextlib.ExitStack() as stack:
        running = {}
        for name, flags in XLA_SETTINGS.items():
            refusal = contextlib.suppress(ChildProcessError) if flags else contextlib.nullcontext()
            with xla_flags(flags), refusal:
                process = stack.enter_context(Process(name))
                process.ask({"build": request})
                process.ask({"steps": 1})
                running[name] = process
        for n in track(range(rounds), contender):
            for name in list(running)[:: -1 if n % 2 else 1]:
                seconds[name].append(running[name].ask({"steps": 2})["seconds"][-1])
    return seconds


def run(settings: Settings) -> Result:
    """Measure every contender under every setting; ratios are of one round's."""
    rows, helping = [], []
    for contender in settings.contenders:
        seconds = measured(contender, settings.work, settings.rounds)
        base = seconds[DEFAULTS]
        for name, taken in seconds.items():
            ratios = [one / other for one, other in zip(taken, base, strict=bool(taken))]
            if not ratios:
                rows.append((contender, name, None, None, None, None, True))
                continue
            ratio, least, most = statistics.median(ratios), min(ratios), max(ratios)
            rows.append((contender, name, statistics.median(taken), ratio, least, most, False))
            if most <= 1 - settings.gain:
                helping.append(f"{name} for {contender} ({ratio:.2f} of the time)")
    answer = [
        f"Every round is faster by {settings.gain:.0%} with " + "; ".join(helping) + "."
        if helping
        else f"No setting makes every round faster by {settings.gain:.0%}.",
        f"Measured on {_machine.processor()}, {_machine.vector()}, {settings.rounds} rounds.",
    ]
    header = ("contender", "setting", "time (s)", "ratio", "least", "largest", "refused")
    return Result(answer, Table(header, rows), [figure(settings, rows)])


def figure(settings: Settings, rows: list[tuple[Any, ...]]) -> Figure:
    """Bars of the ratios, by contender and setting."""
    names = list(XLA_SETTINGS)

    def paint(axes: Any) -> None:
        for n, contender in enumerate(settings.contenders):
            ratios = [row[3] or 0.0 for row in rows if row[0] == contender]
            axes.barh([place + 0.2 * n for place in range(len(names))], ratios, 0.18, color=COLORS[n], label=contender)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set(xlabel="time / time with the defaults", ylabel="setting of XLA")
        legend_below(axes)

    shown = ", ".join(f"{row[1]} {row[3]:.2f}" for row in rows if row[0] == settings.contenders[-1] and row[3])
    return Figure("XLA's settings on this CPU", f"Bars of time ratios. {settings.contenders[-1]}: {shown}.", paint)


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, Settings, run))
