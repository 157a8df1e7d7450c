"""Costs of GPT-2, as by `refgrad cost`: trees, tallies, totals, shares, ratios, conventions, residual bytes."""

from refgrad._text import Table
from refgrad.models import gpt2, gpt2_costs
from refgrad.report import conventions, memory, model, shares, uses
from refgrad.report.cost import Pass, trap_text, tree_table
from refgrad.report.sections.section import Section, Shown

SIZE, BATCH, SEQUENCE = "124M", 1, 1024
DEPTH = 3


def tree() -> Section:
    """Each use of an operation, and both passes by scope."""
    config = gpt2.SIZES[SIZE]
    dims = config.dims(BATCH, SEQUENCE)
    used = [uses.price_use(use, dims) for use in (*gpt2_costs.LAYER, *gpt2_costs.ENDS)]
    passes = [model.model_pass(name, config, BATCH, SEQUENCE) for name in ("forward", "backward")]
    again = model.recomputation(config, BATCH, SEQUENCE)
    over = sum(one.unexplained for one in (*used, *passes)) + sum(abs(d - c) for d, c in again.values())
    recomputed = Table(["", "derived", "counted"], [[what, f"{d:,}", f"{c:,}"] for what, (d, c) in again.items()])
    shown = [Shown("Backward pass of each use of an operation; × is how often the model has it", uses.use_table(used))]
    for priced in passes:
        shown += _pass(priced)
    shown.append(Shown("Computed again by rematerialisation of every block", recomputed, False))
    return Section(
        f"GPT-2 {SIZE} by scope",
        data={"shown": shown},
        about=f"One sequence of {SEQUENCE} tokens in float32, from shapes alone; loops count with their trips, "
        f"bytes are unfused. FLOPs and bytes left unexplained: {over}.",
        ok=not over,
    )


def tallies() -> Section:
    """The costs as polynomials, their totals by size, and the omissions of the document's tally."""
    config = gpt2.SIZES[SIZE]
    tied = config.tie_word_embeddings
    totals = [model.total(name, gpt2.SIZES[name]) for name in gpt2.SIZES]
    exact, forward = gpt2_costs.backward(tied), gpt2_costs.forward()
    whole = {
        "document, one layer (D2.21)": gpt2_costs.PRINTED_LAYER,
        "document, the network (D2.22)": gpt2_costs.PRINTED_TOTAL,
        "what its operations add up to": gpt2_costs.document_total(),
        "exact backward, FLOPs": exact.flops,
        "exact backward, transcendentals": exact.transcendentals,
        "exact forward, FLOPs": forward.flops,
        "exact forward, transcendentals": forward.transcendentals,
        "products of matrices, forward": gpt2_costs.products(),
        "products of matrices, backward": 2 * gpt2_costs.products(),
    }
    differences = {cause: term for cause, term in gpt2_costs.differences(tied).items() if term != 0}
    return Section(
        "The tally, exactly",
        data={
            "shown": [
                Shown("Totals for one sequence of 1024 tokens", model.total_table(totals)),
                Shown("Costs as polynomials", Table(["what", "polynomial"], list(whole.items())), False),
                Shown("Exact backward FLOPs = D2.22 plus", Table(["cause", "polynomial"], list(differences.items()))),
                Shown(
                    "What the document's tally leaves out, as shares of the exact backward FLOPs",
                    shares.share_table(gpt2.SIZES, tied),
                    False,
                ),
                Shown("Backward over forward, 1024 tokens", shares.ratio_table(gpt2.SIZES)),
                Shown("Backward over forward as s/h grows", shares.sweep_table(config)),
            ]
        },
        ok=not any(total.unexplained for total in totals),
    )


def kept() -> Section:
    """Bytes kept from forward to backward, and a training step by published conventions."""
    config = gpt2.SIZES[SIZE]
    blocks = [memory.block_residuals(way, config, BATCH, SEQUENCE) for way in memory.WAYS]
    d = conventions.dimensions(config, BATCH, SEQUENCE)
    return Section(
        "Bytes kept, and published conventions",
        data={
            "shown": [
                Shown(
                    "Bytes kept from forward to backward, beyond parameters and ids",
                    memory.block_table(blocks),
                    note=memory.jacobian_text(),
                ),
                Shown(
                    "FLOPs of a training step by each convention",
                    conventions.convention_table(d),
                    note=conventions.mfu_text(d),
                ),
            ]
        },
        ok=not any(block.unexplained for block in blocks),
    )


def _pass(priced: Pass) -> list[Shown]:
    """A pass's tree, and its walk from the document (or the closed form) to XLA."""
    name = priced.name.capitalize()
    return [
        Shown(f"{name} by scope, {DEPTH} levels deep", tree_table(priced, DEPTH), False, trap_text(priced)),
        Shown(f"{name}, from the closed form to XLA's count", priced.reconciliation.table(), False),
    ]
