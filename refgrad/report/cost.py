"""Cost of any function: forward and backward by scope, XLA's own count beside each scope, and where they part."""

import csv
import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from refgrad import cost
from refgrad._text import Table
from refgrad.cost.scopes import by_scope, first_divergence
from refgrad.ops import OpSpec
from refgrad.symbols import evaluate

FIELDS = ("matmul", "elementwise", "transcendental", "read", "written")
OUTSIDE = "(outside every scope)"
ITSELF = "(itself)"  # what a scope does beside its inner ones: in a backward pass, the sums where gradients meet


@dataclasses.dataclass(frozen=True)
class Pass:
    """One pass of a function, "forward" or "backward": its count, XLA's, and every difference with its cause."""

    name: str
    reconciliation: cost.Reconciliation

    @property
    def count(self) -> cost.Count:
        """The exact count of the traced program."""
        return self.reconciliation.count

    @property
    def unexplained(self) -> int:
        """FLOPs and transcendentals over, summed in absolute value over the asserted steps."""
        return sum(abs(step.unexplained) for step in self.reconciliation.steps if step.asserted)

    @cached_property
    def first_divergence(self) -> str:
        """The first HLO instruction that is counted differently, or "none"."""
        return first_divergence(self.count, self.reconciliation.lowered.hlo) or "none"

    @cached_property
    def scopes(self) -> dict[str, tuple[cost.Cost, int, int]]:
        """Scope path → (cost at exactly that path, XLA's FLOPs there, XLA's transcendentals there)."""
        counted = {scope: part.total for scope, part in self.count.by_scope.items()}
        found = by_scope(self.count, self.reconciliation.lowered.hlo)
        return {
            x.scope: (counted.get(x.scope, cost.Cost()), x.hlo_flops, x.hlo_transcendentals)
            for x in found
            if x.scope in counted or x.hlo_flops or x.hlo_transcendentals
        }

    def data(self) -> dict[str, Any]:
        """The result as plain data for JSON."""
        scopes = [
            {"scope": scope, **own._asdict(), "xla_flops": flops, "xla_transcendentals": transcendentals}
            for scope, (own, flops, transcendentals) in self.scopes.items()
        ]
        total = {**self.count.total._asdict(), "flops": self.count.flops, "bytes": self.count.bytes}
        more = {
            "notes": list(self.count.notes),
            "first_parting": self.first_divergence,
            "unexplained": self.unexplained,
        }
        return {"pass": self.name, "total": total, "scopes": scopes, **more, **self.reconciliation.json()}


def price(name: str, f: Callable[..., Any], *args: Any, **closed: Any) -> Pass:
    """Count one pass and hold it against XLA; `closed` are `cost.reconcile`'s closed forms.

    A remainder stands in the result instead of being raised. Raises UnknownCost and TypeError as `cost.count` does.
    """
    try:
        found = cost.reconcile(f, *args, backward=name == "backward", **closed)
    except cost.Unexplained as unexplained:
        found = unexplained.reconciliation
    return Pass(name, found)


def price_row(row: OpSpec, name: str, sizes: Mapping[str, int]) -> Pass:
    """One pass of an operation in float32, from the document's FLOPs (backward) and its row's closed form to XLA."""
    cost_of_pass = row.backward if name == "backward" else row.forward
    closed: dict[str, Any] = {"derived": tuple(evaluate(part, sizes) for part in cost_of_pass)}
    if name == "backward":
        closed["document"] = evaluate(row.published_flops, sizes)
        closed["causes"] = {cause: evaluate(term, sizes) for cause, term in row.adjustments.items()}
    with jax.enable_x64(False):
        return price(name, row.bound(sizes), *row.shapes(sizes, jnp.float32), **closed)


def tree_table(priced: Pass, depth: int) -> Table:
    """One line a scope with all that lies below it, `depth` levels deep, XLA's count of the same instructions beside.

    Loops count with their trips on both sides; the bytes are unfused.
    """
    below: dict[str, list[int]] = {}
    for scope, (own, flops, transcendentals) in priced.scopes.items():
        parts = scope.split("/")[:depth] if scope else [OUTSIDE]
        paths = ["", *("/".join(parts[: n + 1]) for n in range(len(parts)))]
        for path in paths:
            sums = below.setdefault(path, [0] * 7)
            below[path] = [a + b for a, b in zip(sums, (*own, flops, transcendentals), strict=True)]
    for scope, (own, flops, transcendentals) in priced.scopes.items():
        if flops and any(path.startswith(scope + "/") for path in below):
            below[f"{scope}/{ITSELF}"] = [*own, flops, transcendentals]
    if len(below) == 2 and OUTSIDE in below:
        del below[OUTSIDE]  # a program without scopes: the total says it
    whole = priced.count.flops
    rows = [_line(path, sums, whole) for path, sums in sorted(below.items(), key=lambda item: _order(item[0], below))]
    header = ["scope", "flops", "matmul", "elementwise", "transc.", "bytes", "fl/byte", "%", "XLA flops", "XLA transc."]
    return Table(header, rows)


def _order(path: str, below: dict[str, list[int]]) -> tuple[int, ...]:
    """Sort key of a path: its first appearance after those of its parents, so that children follow their parent."""
    if not path:
        return ()
    places = {name: n for n, name in enumerate(below)}
    parts = path.split("/") if path != OUTSIDE else [path]
    return tuple(places["/".join(parts[: n + 1])] for n in range(len(parts)))


def _line(path: str, sums: list[int], whole: int) -> list[str]:
    matmul, elementwise, transcendental, read, written, xla, xla_transcendental = sums
    flops, moved = matmul + elementwise, read + written
    level = path.count("/") + 1 if path and path != OUTSIDE else int(bool(path))
    name = path if path == OUTSIDE else path.rsplit("/", 1)[-1]
    numbers = [f"{n:,}" for n in (flops, matmul, elementwise, transcendental, moved)]
    shares = [f"{flops / moved:.2f}" if moved else "", f"{flops / whole:.2%}" if whole else ""]
    return ["  " * level + name if path else "total", *numbers, *shares, f"{xla:,}", f"{xla_transcendental:,}"]


def trap_text(priced: Pass, limit: int = 8) -> str:
    """XLA's traps for this program and the count's notes, a line each; of more than `limit`, the number of the rest."""
    lines = [f"trap: {trap.name}: {trap.detail}" for trap in priced.reconciliation.lowered.traps]
    lines += [f"note: {note}" for note in priced.count.notes]
    lines = list(dict.fromkeys(lines))
    rest = len(lines) - limit
    return "\n".join([*lines[:limit], *([f"… and {rest} more (all of them in --json)"] if rest > 0 else [])])


def csv_text(passes: Sequence[Pass]) -> str:
    """One line a pass and scope, exactly that scope's own cost: a column adds up to the whole."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["pass", "scope", "flops", *FIELDS, "xla_flops", "xla_transcendentals"])
    for priced in passes:
        for scope, (own, flops, transcendentals) in priced.scopes.items():
            writer.writerow([priced.name, scope, own.matmul + own.elementwise, *own, flops, transcendentals])
    return out.getvalue()
