"""Train a GPT-2: text in, model out; with no options, a small one on the Python standard library's source."""

import argparse
import logging
import sys
import time
from pathlib import Path

from refgrad._files import write_json, write_text
from refgrad.cli.settings import build


def run(options: argparse.Namespace) -> int:
    """Train and show the result; returns 0, 1 where training stopped because something went wrong, or 128 and the
    number of the signal that ended it.

    Raises ValueError, TypeError or OSError for bad settings, texts and folders, and ImportError without the extra.
    """
    from refgrad.train import allocator
    from refgrad.train.mesh import devices

    allocator.keep_temporaries()
    devices.connect(options.coordinator, options.processes, options.process)
    with devices.together():
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    from refgrad.report import figures, training
    from refgrad.train.mesh import devices
    from refgrad.train.run import folder, metrics
    from refgrad.train.run.evaluate import evaluate
    from refgrad.train.run.loop import train
    from refgrad.train.run.restore import CheckpointError
    from refgrad.train.run.signals import Interrupted
    from refgrad.train.run.watch import Stopped
    from refgrad.train.settings import SECTIONS, Settings

    figures.require()
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax logs the errors that it raises, too
    out = Path(options.out)
    before = folder.record(out).run.settings if options.resume else Settings()
    settings = build(options.config, options.set, SECTIONS, before.updated, words=True)
    start = time.perf_counter()
    try:
        trained = train(settings, out, options.resume, say)
    except Interrupted as error:
        if devices.first():
            print(f"refgrad train: {error}", file=sys.stderr)
        return error.exit_code
    except (Stopped, CheckpointError) as error:
        if devices.several():
            raise
        print(f"refgrad train: {error}", file=sys.stderr)
        return 1
    evaluation = evaluate(trained)
    if not devices.first():
        return 0
    training.draw(metrics.read(out / folder.METRICS), evaluation, out / "loss.svg")
    write_text(out / "samples.txt", "\n\n".join(evaluation.samples))
    for path in (out / "result.json", options.json):
        if path:
            write_json(path, training.data(evaluation))
    print(f"\n{training.table(evaluation)}\n\n{training.legend(evaluation)}\n\n{training.sample(evaluation)}\n")
    print(f"{time.perf_counter() - start:.0f} s; checkpoints, metrics, curve and samples in {out}")
    return 0


def say(text: str) -> None:
    """Print progress on standard error."""
    print(text, file=sys.stderr)
