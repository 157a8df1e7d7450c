"""How long does counting a backward pass take as layers are added, and does it allocate anything?

Counts GPT-2's backward pass at the width of 1.5B (1600, 25 heads, 1024 tokens), unrolled and scanned, from shapes
alone. Prints seconds and the FLOPs found; unrolled grows linearly with the layers, scanned stays flat.

    python experiments/count_time.py --out count_time

writes count_time.csv and, where matplotlib is installed (the `report` extra), count_time.svg.
"""

import argparse
import csv
import dataclasses
import resource
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.progress import track

from refgrad import cost
from refgrad._text import table
from refgrad.models import gpt2

LAYERS = (3, 6, 12, 24, 48)


def seconds(layers: int, scan: bool) -> tuple[float, int]:
    """The better of two runs, and the backward FLOPs counted."""
    config = dataclasses.replace(gpt2.SIZES["1.5B"], n_layer=layers)
    params = jax.eval_shape(partial(gpt2.init, config=config), jax.random.key(0))
    ids = jax.ShapeDtypeStruct((1, 1024), jnp.int32)
    best, flops = float("inf"), 0
    for _ in range(2):
        start = time.perf_counter()
        flops = cost.count_backward(partial(gpt2.loss, config=config, scan=scan), params, ids, ids).flops
        best = min(best, time.perf_counter() - start)
    return best, flops


def draw(rows: list[tuple[int, float, float, int]], path: Path) -> None:
    """Seconds against layers, both ways of walking them."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    layers = [row[0] for row in rows]
    axes.plot(layers, [row[1] for row in rows], "o-", label="layers unrolled")
    axes.plot(layers, [row[2] for row in rows], "s--", label="layers scanned")
    axes.set_xlabel("layers")
    axes.set_ylabel("time to count the backward pass (s)")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    """Count at every depth, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("count_time"), help="path of the files, without suffix")
    options = parser.parse_args()
    rows = []
    for layers in track(LAYERS, "layers", console=Console(stderr=True), transient=True):
        (unrolled, flops), (scanned, same) = seconds(layers, scan=False), seconds(layers, scan=True)
        if flops != same:
            raise AssertionError(f"{layers} layers: {flops} FLOPs unrolled, but {same} scanned")
        rows.append((layers, unrolled, scanned, flops))
    print(
        table(
            ["layers", "unrolled (s)", "scanned (s)", "FLOPs"],
            [[n, f"{u:.2f}", f"{s:.2f}", f"{f:,}"] for n, u, s, f in rows],
        )
    )
    print(f"\npeak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    with options.out.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["layers", "unrolled_s", "scanned_s", "flops"])
        writer.writerows(rows)
    try:
        draw(rows, options.out.with_suffix(".svg"))
    except ImportError:
        print("no picture: pip install -e '.[report]' brings matplotlib")


if __name__ == "__main__":
    main()
