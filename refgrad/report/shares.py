"""The tally's omissions as shares of the exact count, and the backward pass over the forward as a function of s/h."""

from collections.abc import Mapping
from typing import Any

import sympy

from refgrad._text import table
from refgrad.models import gpt2, omissions, ratios, tally
from refgrad.symbols import evaluate

SEQUENCE = 1024
STEPS = (-4, -2, -1, 0, 1, 2, 4)  # s/h = 2 to these powers


def shares(sizes: Mapping[str, gpt2.Config], tied: bool = True) -> list[dict[str, Any]]:
    """Each omission: its name, its kind, its formula, and by size its FLOPs and its share of the exact backward count.

    One sequence of 1024 tokens. The terms of kind "counted" add up to the exact count less the document's.
    """
    kinds = {"counted": omissions.counted(tied), "uncounted": omissions.uncounted()}
    dims = {name: config.dims(1, SEQUENCE) for name, config in sizes.items()}
    exact = {name: evaluate(tally.backward(tied).flops, at) for name, at in dims.items()}
    found = []
    for kind, terms in kinds.items():
        for omission, term in terms.items():
            flops = {name: evaluate(term, at) for name, at in dims.items()}
            share = {name: flops[name] / exact[name] for name in flops}
            found.append({"omission": omission, "kind": kind, "formula": str(term), "flops": flops, "share": share})
    return found


def share_table(sizes: Mapping[str, gpt2.Config], tied: bool = True) -> str:
    """The omissions as a table: first those in the exact count with their sum, then those in neither count."""
    found = shares(sizes, tied)
    rows: list[list[str]] = []
    for kind, title in (("counted", "document's total (D2.22) + these = exact:"), ("uncounted", "in neither count:")):
        rows.append([title, "", *[""] * len(sizes)])
        of_kind = [one for one in found if one["kind"] == kind]
        for one in of_kind:
            shown = [f"{one['share'][name]:+.4%}" for name in sizes]
            rows.append([f"  {one['omission']}", *shown, one["formula"]])
        if kind == "counted":
            total = [f"{sum(one['share'][name] for one in of_kind):+.4%}" for name in sizes]
            rows.append(["  together", *total, ""])
    split = {name: config.dims(1, SEQUENCE) for name, config in sizes.items()}
    apart, exact = omissions.transcendentals(), tally.backward(tied).flops
    cells = [f"{evaluate(apart, at) / evaluate(exact, at):+.4%}" for at in split.values()]
    rows.append(["transcendentals, counted apart by XLA", *cells, str(apart)])
    return table(["omission", *sizes, "formula"], rows)


def ratio_table(sizes: Mapping[str, gpt2.Config]) -> str:
    """Each ratio at every size for one sequence of 1024 tokens: a column a size."""
    columns = [ratios.sweep(config.dims(1, SEQUENCE), (SEQUENCE,))[0][1] for config in sizes.values()]
    header = ["over the forward pass", *(f"{name}, s/h={SEQUENCE / c.n_embd:.2f}" for name, c in sizes.items())]
    return table(header, [[name, *(f"{column[name]:.4f}" for column in columns)] for name in columns[0]])


def sweep_table(config: gpt2.Config) -> str:
    """Each ratio as s/h grows, at this model's other sizes: a column a length."""
    lengths = tuple(sorted({max(1, int(config.n_embd * 2.0**step)) for step in STEPS}))
    found = ratios.sweep(config.dims(1, 1), lengths)
    header = ["over the forward pass", *(f"s/h={length / config.n_embd:g}" for length in lengths)]
    return table(header, [[name, *(f"{column[name]:.4f}" for _, column in found)] for name in found[0][1]])


def ratio_text() -> str:
    """The ratios of one block's products as formulas in r = s/h, and what they say of the documents' claims."""
    width = max(map(len, ratios.of_one_block()))
    lines = [f"  {name.ljust(width)}  {form}" for name, form in ratios.of_one_block().items()]
    return "\n".join(["one block's products alone, r = s/h:", *lines])


def ratio_data(sizes: Mapping[str, gpt2.Config]) -> dict[str, dict[str, float]]:
    """Size → name → ratio, for one sequence of 1024 tokens."""
    return {name: ratios.sweep(config.dims(1, SEQUENCE), (SEQUENCE,))[0][1] for name, config in sizes.items()}


def polynomial_text(tied: bool) -> str:
    """The model's cost as polynomials: both passes in XLA's convention, their products, remat's recomputation."""
    forward, backward, again = tally.forward(), tally.backward(tied), tally.recomputation()
    lines = (
        ("exact forward, FLOPs", forward.flops),
        ("  transcendentals", forward.transcendentals),
        ("products of matrices, forward", tally.products()),
        ("  backward", 2 * tally.products()),
        ("exact backward, FLOPs", backward.flops),
        ("recomputed by remat, FLOPs", again.flops),
        ("  transcendentals", again.transcendentals),
    )
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name.ljust(width)}  {sympy.expand(form)}" for name, form in lines)
