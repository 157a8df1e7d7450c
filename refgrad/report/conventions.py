"""Published ways to count a training step beside the exact products, and what each makes of the same utilisation."""

import textwrap

from refgrad._text import table
from refgrad.cost.conventions import CONVENTIONS, Dimensions, matmul_flops
from refgrad.cost.peaks import mfu, peak
from refgrad.models import gpt2

WIDTH = 150
DEVICES = ("A100", "H100 SXM", "TPU v5p")


def dimensions(config: gpt2.Config, batch: int, sequence: int) -> Dimensions:
    """The model's sizes as the conventions take them."""
    return Dimensions(
        config.n_layer,
        config.n_embd,
        config.n_head,
        config.vocab_size,
        sequence,
        batch,
        n_positions=config.n_positions,
    )


def convention_table(d: Dimensions) -> str:
    """FLOPs of a step by each convention, its ratio to the exact products, its formula."""
    exact = matmul_flops(d)
    rows = [[c.name, f"{c.flops(d):,}", f"{c.flops(d) / exact:.4f}", c.formula] for c in CONVENTIONS]
    return table(["convention", "FLOPs of a step", "/ exact", "formula"], rows)


def convention_notes() -> str:
    """What each convention leaves out, and its source."""
    lines = (f"{c.name}: leaves out {c.leaves_out}. Source: {c.source}." for c in CONVENTIONS)
    return "\n".join(textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in lines)


def mfu_text(d: Dimensions) -> str:
    """Seconds of a step at full rate, and the utilisation that each convention reports for one in twice that."""
    exact = matmul_flops(d)
    lines = []
    for name in DEVICES:
        found = peak(name)
        seconds = exact / found.flops_per_second
        shown = ", ".join(f"{c.name} {mfu(2 * seconds, c.flops(d), found):.1%}" for c in CONVENTIONS)
        line = f"{name} ({found.dtype}, {found.flops_per_second / 1e12:g} TFLOP/s): {seconds:.3e} s at full rate; "
        lines.append(textwrap.fill(line + f"in twice that, MFU by {shown}", WIDTH, subsequent_indent="  "))
    return "\n".join(lines)
