"""Are the rules right on this GPU, what does a step cost there, and in which kernels does its time go?

First correctness: `refgrad verify` of every operation under each rule set, its costs reconciled with XLA's count on
that backend, and the gradient of a whole model in 16 bits, cuDNN's attention included, against float32 autodiff. Then
speed: the bench, and a profile of the named contenders by kernel. `--quick` rehearses all but cuDNN's part on a CPU.

    python experiments/on_gpu.py
"""

import collections
import dataclasses
import gzip
import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import jax
from _common import Figure, Result, Table, main, track

from refgrad import cost
from refgrad.bench.contenders import BASELINE, CONTENDERS, Workload
from refgrad.bench.run import ContenderRow, measure
from refgrad.cli.devices import device
from refgrad.cli.settings import load
from refgrad.models import gpt2
from refgrad.models.inputs import named_leaves
from refgrad.ops import TABLE
from refgrad.report.figures import COLORS
from refgrad.report.model import relative
from refgrad.report.operations import dimensions
from refgrad.rule_sets import NARROW, RULE_SETS
from refgrad.train.update_in_backward.layers import cast

STEPS = 3  # of each profile
SLACK = 2.0  # a kernel's gradient may err by this factor more than the blocks' in the same dtype


@dataclasses.dataclass(frozen=True)
class Settings:
    """The platform, the model, the operations that are checked, the contenders timed and profiled."""

    platform: str
    model: str
    batch: int
    sequence: int
    operations: list[str]
    contenders: list[str]
    profiled: list[str]
    rounds: int
    kernels: int

    @property
    def work(self) -> Workload:
        """The step's sizes."""
        sizes = [f"input.batch={self.batch}", f"input.sequence={self.sequence}"]
        return Workload(load(self.model, sizes)[0], self.batch, self.sequence)

    def __post_init__(self) -> None:
        device(self.platform)  # raises where it is not present
        _ = self.work
        for name in (*self.contenders, *self.profiled):
            if name not in CONTENDERS:
                raise ValueError(f"contenders holds {name!r}, but must hold names such as {', '.join(CONTENDERS)}")
        if missing := next(filter(None, (CONTENDERS[name].missing for name in self.contenders)), ""):
            raise ValueError(f"contenders: {missing}")
        if min(self.rounds, self.kernels) < 1:
            raise ValueError(f"rounds is {self.rounds} and kernels is {self.kernels}, but each must be at least 1")

    @property
    def names(self) -> list[str]:
        """The operations."""
        return list(TABLE) if self.operations == ["all"] else self.operations


def verified(settings: Settings, rules: str) -> str:
    """Run `refgrad verify` in a process of its own; return "" if everything holds, else the end of its output."""
    words = [sys.executable, "-m", "refgrad", "verify", "--device", settings.platform, "--rules", rules]
    package = RULE_SETS[rules].packages[-1]
    mine = [name for name in settings.names if TABLE[name].package == package]
    if settings.operations != ["all"]:
        words += [word for name in mine for word in ("--op", name)]
    if not mine:
        return ""
    done = subprocess.run(words, capture_output=True, text=True)
    return "" if done.returncode == 0 else f"verify --rules {rules}: {(done.stdout + done.stderr).strip()[-400:]}"


def reconciled(name: str, settings: Settings) -> str:
    """Return "" if an operation's forward and backward FLOPs are XLA's on this backend, else what remains."""
    row, dims = TABLE[name], dimensions(gpt2.Config(), 2, 24)
    arrays = row.shapes(dims, "float32")
    try:
        for backward in (False, True):
            cost.reconcile(row.bound(dims), *arrays, backward=backward)
    except cost.Unexplained as error:
        return f"{name}: {error}"
    return ""


def gradient_error(settings: Settings, rules: str, dtype: str) -> float:
    """The largest relative error of any parameter's gradient in `dtype`, against float32 autodiff."""
    config = dataclasses.replace(gpt2.Config(n_embd=64 * 2, n_head=2), n_positions=max(64, settings.sequence))
    work = Workload(config, 2, config.n_positions)
    params = gpt2.init(jax.random.key(0), config)

    def loss(params: gpt2.Params, rules: str, dtype: Any) -> jax.Array:
        return gpt2.loss(cast(params, dtype), *work.ids(), config, rules)

    with jax.default_matmul_precision("highest"):
        want = named_leaves(jax.jit(jax.grad(partial(loss, rules="autodiff", dtype=None)))(params))
        got = named_leaves(jax.jit(jax.grad(partial(loss, rules=rules, dtype=dtype)))(params))
    return max(relative(leaf, want[name]) for name, leaf in got.items())


def by_kernel(folder: Path, platform: str) -> dict[str, float]:
    """Seconds by kernel, in JAX's profile in `folder`: the device's streams, or the host's threads for a CPU."""
    (path,) = folder.rglob("*.trace.json.gz")
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    named = {event["pid"]: event["args"]["name"] for event in events if event.get("name") == "process_name"}
    wanted = {pid for pid, name in named.items() if name.startswith("/device:" if platform != "cpu" else "/host:CPU")}
    seconds: dict[str, float] = collections.defaultdict(float)
    for event in events:
        if event.get("ph") == "X" and event["pid"] in wanted and "hlo_op" in event.get("args", {}):
            seconds[event["args"]["hlo_op"] if platform == "cpu" else event["name"]] += event["dur"] / 1e6
    return dict(seconds)


def profile(contender: str, settings: Settings) -> dict[str, float]:
    """Seconds of a step by kernel."""
    runner = CONTENDERS[contender].make(settings.work)
    runner.step()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(STEPS):
                runner.step()
        return {name: s / STEPS for name, s in by_kernel(Path(folder), settings.platform).items()}


def run(settings: Settings) -> Result:
    """Check, then time, then profile."""
    rule_sets = [one.name for one in RULE_SETS.values() if one.verified]
    failures = [verified(settings, rules) for rules in track(rule_sets, "verify")]
    failures += [reconciled(name, settings) for name in track(settings.names, "reconcile")]
    errors = {
        (one.name, dtype): gradient_error(settings, one.name, dtype)
        for one in RULE_SETS.values()
        for dtype in NARROW
        if one.fused and (one.kernel is None or settings.platform == "gpu")
    }
    for (rules, dtype), error in errors.items():
        if not error <= SLACK * errors["fused", dtype]:
            failures.append(
                f"{rules} in {dtype}: a gradient's error is {error:.1e}, blocks' {errors['fused', dtype]:.1e}"
            )
    profiles = {name: profile(name, settings) for name in settings.profiled}
    timed = measure(settings.work, settings.contenders, settings.rounds, True, lambda text: None)
    rows = [
        (name, kernel, 1e3 * s, s / sum(of.values()))
        for name, of in profiles.items()
        for kernel, s in sorted(of.items(), key=lambda item: -item[1])[: settings.kernels]
    ]
    failures = [failure for failure in failures if failure]
    answer = [
        f"{len(settings.names)} operations on {device(settings.platform).device_kind}: "
        + (f"{len(failures)} checks fail." if failures else "verified and reconciled."),
        "Largest error of a gradient: " + ", ".join(f"{r} {d} {error:.1e}" for (r, d), error in errors.items()) + ".",
        *(shown(row) for row in timed if row.name != BASELINE),
    ]
    header = ("contender", "kernel", "time (ms a step)", "share of the kernels")
    return Result(answer, Table(header, rows), [figure(timed)], failures=failures)


def shown(row: ContenderRow) -> str:
    """A contender's figures as a sentence."""
    bytes_ = f", {row.temporaries_ratio:.2f} of its temporaries" if row.temporaries_ratio else ""
    return f"{row.name}: {row.ratio:.2f} of float32 autodiff's time ({row.spread[0]:.2f}…{row.spread[1]:.2f}){bytes_}."


def figure(timed: list[ContenderRow]) -> Figure:
    """Bars of the contenders' time ratios."""

    def paint(axes: Any) -> None:
        axes.barh([row.name for row in timed], [row.ratio for row in timed], color=COLORS[0])
        axes.invert_yaxis()
        axes.set(xlabel="time / time of float32 autodiff", ylabel="contender")

    alt = "Bars of time ratios: " + ", ".join(f"{row.name} {row.ratio:.2f}" for row in timed) + "."
    return Figure("A training step on this device", alt, paint)


if __name__ == "__main__":
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # processes share the device's memory
    sys.exit(main(__file__, __doc__, Settings, run))
