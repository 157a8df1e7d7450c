"""The tally's omissions as shares of the exact count, and the backward pass over the forward as a function of s/h."""

from collections.abc import Mapping
from typing import Any

import sympy

from refgrad._text import Table
from refgrad.models import gpt2, gpt2_costs, linear_network, omissions, ratios
from refgrad.symbols import evaluate

SEQUENCE = 1024
STEPS = (-4, -2, -1, 0, 1, 2, 4)  # s/h = 2 to these powers


def shares(sizes: Mapping[str, gpt2.Config], tied: bool = True) -> list[dict[str, Any]]:
    """Each omission: its name, its kind, its formula, and by size its FLOPs and its share of the exact backward count.

    One sequence of 1024 tokens. The terms of kind "counted" add up to the exact count less the document's.
    """
    kinds = {"counted": omissions.counted(tied), "uncounted": omissions.uncounted()}
    dims = {name: config.dims(1, SEQUENCE) for name, config in sizes.items()}
    exact = {name: evaluate(gpt2_costs.backward(tied).flops, at) for name, at in dims.items()}
    found = []
    for kind, terms in kinds.items():
        for omission, term in terms.items():
            flops = {name: evaluate(term, at) for name, at in dims.items()}
            share = {name: flops[name] / exact[name] for name in flops}
            found.append(
                {"omission": omission, "kind": kind, "formula": shortest(term), "flops": flops, "share": share}
            )
    return found


def shortest(form: sympy.Expr) -> Any:
    """Return the polynomial expanded or factored, as the one or the other has the shorter text."""
    return min(sympy.expand(form), sympy.factor(form), key=lambda one: len(str(one)))


def share_table(sizes: Mapping[str, gpt2.Config], tied: bool = True) -> Table:
    """The omissions as a table: first those in the exact count with their sum, then those in neither count."""
    found = shares(sizes, tied)
    rows: list[list[object]] = []
    for kind, title in (("counted", "document's total (D2.22) + these = exact:"), ("uncounted", "in neither count:")):
        rows.append([title, "", *[""] * len(sizes)])
        of_kind = [one for one in found if one["kind"] == kind]
        for one in of_kind:
            shown = [_percent(one["share"][name]) for name in sizes]
            rows.append([f"  {one['omission']}", *shown, one["formula"]])
        if kind == "counted":
            total = [_percent(sum(one["share"][name] for one in of_kind)) for name in sizes]
            rows.append(["  together", *total, ""])
    split = {name: config.dims(1, SEQUENCE) for name, config in sizes.items()}
    apart, exact = omissions.transcendentals(), gpt2_costs.backward(tied).flops
    cells = [_percent(evaluate(apart, at) / evaluate(exact, at)) for at in split.values()]
    rows.append(["transcendentals, counted apart by XLA", *cells, apart])
    return Table(["omission", *sizes, "formula"], rows)


def _percent(share: float) -> str:
    """Four decimals, or as many as show what is not 0."""
    return f"{share:+.4%}" if abs(share) >= 5e-7 or not share else f"{100 * share:+.0e}%"


def ratio_table(sizes: Mapping[str, gpt2.Config]) -> Table:
    """Each ratio at every size for one sequence of 1024 tokens: a column a size."""
    columns = [ratios.sweep(config.dims(1, SEQUENCE), (SEQUENCE,))[0][1] for config in sizes.values()]
    header = ["over the forward pass", *(f"{name}, s/h={SEQUENCE / c.n_embd:.2f}" for name, c in sizes.items())]
    return Table(header, [[name, *(f"{column[name]:.4f}" for column in columns)] for name in columns[0]])


def sweep_table(config: gpt2.Config) -> Table:
    """Each ratio as s/h grows, at this model's other sizes: a column a length."""
    lengths = tuple(sorted({max(1, int(config.n_embd * 2.0**step)) for step in STEPS}))
    found = ratios.sweep(config.dims(1, 1), lengths)
    header = ["over the forward pass", *(f"s/h={length / config.n_embd:g}" for length in lengths)]
    return Table(header, [[name, *(f"{column[name]:.4f}" for _, column in found)] for name in found[0][1]])


def ratio_text() -> str:
    """The ratios of products as formulas: of one block of GPT-2, and of D0's linear network."""
    printed = linear_network.PRINTED
    forms = {
        **{f"one block's products, r = s/h: {name}": form for name, form in ratios.of_one_block().items()},
        "D0's network: backward / forward": sympy.cancel(printed["dX"] / printed["forward"]),
        "D0's network: … without dX, which training does not need": sympy.cancel(printed["dW1"] / printed["forward"]),
    }
    width = max(map(len, forms))
    return "\n".join(f"{name.ljust(width)}  {form}" for name, form in forms.items())


def ratio_data(sizes: Mapping[str, gpt2.Config]) -> dict[str, dict[str, float]]:
    """Size → name → ratio, for one sequence of 1024 tokens."""
    return {name: ratios.sweep(config.dims(1, SEQUENCE), (SEQUENCE,))[0][1] for name, config in sizes.items()}


def polynomial_text() -> str:
    """More of the model's cost as polynomials: the forward pass, both passes' products, remat's recomputation."""
    forward, again = gpt2_costs.forward(), gpt2_costs.recomputation()
    lines = (
        ("exact forward, FLOPs", forward.flops),
        ("  transcendentals", forward.transcendentals),
        ("products of matrices, forward", gpt2_costs.products()),
        ("  backward", 2 * gpt2_costs.products()),
        ("recomputed by remat, FLOPs", again.flops),
        ("  transcendentals", again.transcendentals),
    )
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name.ljust(width)}  {sympy.expand(form)}" for name, form in lines)
