"""Published ways to count a training step beside the exact products, and what each makes of the same utilisation."""

from refgrad._text import Table, wrapped
from refgrad.cost.conventions import CONVENTIONS, Dimensions, matmul_flops
from refgrad.cost.peaks import mfu, peak
from refgrad.models import gpt2

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


def convention_table(d: Dimensions) -> Table:
    """FLOPs of a step by each convention, its ratio to the exact products, its formula."""
    exact = matmul_flops(d)
    rows = [[c.name, f"{c.flops(d):,}", f"{c.flops(d) / exact:.4f}", c.formula] for c in CONVENTIONS]
    return Table(["convention", "FLOPs of a step", "/ exact", "formula"], rows)


def convention_notes() -> str:
    """Each convention's omissions, and its source."""
    lines = (f"{c.name}: leaves out {c.leaves_out}. Source: {c.source}." for c in CONVENTIONS)
    return "\n".join(map(wrapped, lines))


def mfu_text(d: Dimensions) -> str:
    """Seconds of a step at full rate, and the utilisation that each convention reports for a step in twice that."""
    exact = matmul_flops(d)
    lines = [
        f"{p.device} ({p.dtype}): {exact / p.flops_per_second:.3e} s a step at full rate" for p in map(peak, DEVICES)
    ]
    shown = (f"{c.name} {mfu(2.0, c.flops(d), exact):.1%}" for c in CONVENTIONS)  # the rate that takes one second
    line = f"a step in twice its time at full rate has an MFU of, by {', '.join(shown)}"
    return "\n".join([*lines, wrapped(line)])


def convention_data(d: Dimensions) -> dict[str, int]:
    """Convention → FLOPs of a step."""
    return {c.name: c.flops(d) for c in CONVENTIONS}
