"""Does `refgrad.verify` catch wrong rules? Every mutant of every operation and argument, in four dtypes and two sizes.

Prints, for each argument, generated / equivalent / caught: a mutant that changes no cotangent beyond its allowance at
three random inputs is equivalent (and named below the table); every other one must be caught.

    python experiments/mutants.py --size small --out mutants_small

writes mutants_small.csv, a line per operation, dtype and argument, as it goes. `--size large` takes arguments of a
million elements and more. Exit code 1 where a mutant survives or an argument has none.
"""

import argparse
import csv
import sys
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.progress import track

from refgrad import verify
from refgrad._text import table
from refgrad.ops import TABLE, Row

DTYPES = ("float64", "float32", "bfloat16", "float16")
SMALL = {"b": 2, "s": 6, "h": 12, "n_h": 3, "d": 4, "V": 11, "i": 4, "o": 7, "H": 5, "W": 4, "k": 3, "l": 2}
IMAGE = {"H": 8, "W": 9, "k": 3, "l": 2}
LARGE = {"b": 16, "s": 64, "h": 1024, "n_h": 16, "d": 64, "V": 1024, "i": 1024, "o": 1024, **IMAGE}
FEW_ROWS = {"b": 2, "s": 8}  # where the weights alone have a million elements


def dimensions(row: Row, size: str) -> dict[str, int]:
    """The size's dimensions; few rows of activations where a weight is large without them.

    Raises ValueError where no argument of the large size has a million elements.
    """
    if size == "small":
        return SMALL
    for dims in ({**LARGE, **FEW_ROWS}, LARGE):
        if max(shape.size for shape in row.shapes(dims, jnp.float32)) >= 10**6:
            return dims
    raise ValueError(f"{row.name} has no argument of 10⁶ elements at {LARGE}")


def verdicts(row: Row, dims: dict[str, int], dtype: str) -> dict[str, str]:
    """Each mutant of the operation at `dims` in `dtype`: caught, equivalent or survived."""
    return verify.tally(row.op, *row.sample(0, dims, jnp.dtype(dtype)), *row.static_values(dims))


def main() -> int:
    """Make every mutant, put it before the verifier, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("small", "large"), default="small")
    parser.add_argument("--op", action="append", choices=list(TABLE), help="this operation alone (may be repeated)")
    parser.add_argument("--dtype", action="append", choices=DTYPES, help="this dtype alone (may be repeated)")
    parser.add_argument("--out", type=Path, default=Path("mutants"), help="path of the CSV file, without suffix")
    options = parser.parse_args()
    dtypes = options.dtype or DTYPES
    cells: dict[tuple[str, str], dict[str, str]] = {}
    named: list[str] = []
    total: Counter[str] = Counter()
    work = [(name, dtype) for name in options.op or TABLE for dtype in dtypes]
    with options.out.with_suffix(".csv").open("w", newline="") as file, jax.enable_x64(True):
        lines = csv.writer(file)
        lines.writerow(["operation", "argument", "dtype", "size", "generated", "equivalent", "caught"])
        for name, dtype in track(work, "mutants", console=Console(stderr=True), transient=True):
            row = TABLE[name]
            found = verdicts(row, dimensions(row, options.size), dtype)
            for argument in row.differentiable:
                own = Counter(verdict for mutant, verdict in found.items() if mutant.startswith(f"{argument}: "))
                counts = (own.total(), own["equivalent"], own["caught"])
                cells.setdefault((name, argument), {})[dtype] = "/".join(map(str, counts))
                lines.writerow([name, argument, dtype, options.size, *counts])
                total.update(own)
                total["without a mutant caught"] += not own["caught"]
            file.flush()
            named += [f"{verdict}: {name} {dtype} {mutant}" for mutant, verdict in found.items() if verdict != "caught"]
    print("generated/equivalent/caught\n")
    rows = [[*key, *(by_dtype.get(dtype, "") for dtype in dtypes)] for key, by_dtype in cells.items()]
    print(table(["operation", "argument", *dtypes], rows))
    print("\n".join(["", *named]) if named else "")
    generated = total["caught"] + total["equivalent"] + total["survived"]
    print(f"{options.size}: {generated} generated, {total['equivalent']} equivalent, {total['caught']} caught")
    return 1 if total["survived"] or total["without a mutant caught"] else 0


if __name__ == "__main__":
    sys.exit(main())
