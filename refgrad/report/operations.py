"""Each operation's rule, verified and priced: what `refgrad verify` shows first."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from refgrad import verify
from refgrad._text import Table
from refgrad.models import gpt2
from refgrad.ops import TABLE, OpSpec
from refgrad.report.cost import Pass, price_row
from refgrad.symbols import evaluate
from refgrad.verify.report import PAGE, anchor

BESIDE = {"m": 16, "c": 20, "v": 40, "H": 6, "W": 5, "k": 3, "l": 2}  # blocks, chunks, images: no sizes of the model
HOLDS = ("ok", "kink", "jump", "end of the domain", "right; autodiff is wrong here")
NONE = "–"  # where a document has no formula
SAME = ("float64", "autodiff")  # not shown: in float64 autodiff errs by rounding alone


@dataclasses.dataclass(frozen=True)
class OperationResult:
    """One operation: a report per dtype, and the backward pass from the document's FLOPs to XLA's."""

    name: str
    dims: Mapping[str, int]
    reports: Mapping[str, verify.Report]
    priced: Pass

    @property
    def row(self) -> OpSpec:
        """The operation's row of the table."""
        return TABLE[self.name]

    @property
    def ok(self) -> bool:
        """True if every cotangent holds in every dtype, and no FLOP is unexplained."""
        return self.priced.unexplained == 0 and not self.failures

    @property
    def failures(self) -> tuple[verify.Row, ...]:
        """The rows of the reports that do not hold: stricter than `check`, since these rules are ours.

        An error beyond the allowance fails even where autodiff errs as much, and so does a rule less accurate than it.
        Kinks do not fail: narrow arguments have ties by chance, and a rule's values there are its contract.
        """
        rows = (row for report in self.reports.values() for row in report.rows)
        return tuple(
            row for row in rows if row.verdict not in HOLDS or (row.property == "accuracy" and _share(row) > 1)
        )

    @property
    def complaints(self) -> tuple[str, ...]:
        """A line for each of the failures, with its dtype and figures."""
        failures = self.failures
        return tuple(
            f"{self.name} in {dtype}: {row.argument} {row.property} {row.verdict}"
            + (f": error {row.error:.3g}, allowed {row.allowed:.3g}" if row.error and row.allowed else "")
            + (f" ({row.note})" if row.note else "")
            + f"; what it means: {PAGE}{anchor(row.verdict)}"
            for dtype, report in self.reports.items()
            for row in report.rows
            if row in failures
        )

    def data(self) -> dict[str, Any]:
        """The result as plain data for JSON."""
        return {
            "operation": self.name,
            "source": self.row.source,
            "dims": dict(self.dims),
            "ok": self.ok,
            "reports": {dtype: report.data() for dtype, report in self.reports.items()},
            "cost": self.priced.reconciliation.json(),
        }


def dimensions(config: gpt2.Config, batch: int, sequence: int) -> dict[str, int]:
    """The sizes at which operations are checked: the model's, those of its widest projection, blocks and images."""
    return {**config.dims(batch, sequence), "i": config.n_embd, "o": 3 * config.n_embd, **BESIDE}


def verify_operation(
    name: str, dims: Mapping[str, int], dtypes: Sequence[str], seed: int = 0, draws: int = 8
) -> OperationResult:
    """Check the operation's cotangents in each dtype at `dims`, and reconcile its backward FLOPs there."""
    row = TABLE[name]
    settings = {"properties": ("structure", "accuracy"), "seed": seed, "draws": draws}
    reports = {
        dtype: verify.check(row.bound(dims), *row.sample(seed, dims, jnp.dtype(dtype)), **settings) for dtype in dtypes
    }
    return OperationResult(name, dims, reports, price_row(row, "backward", dims))


def accuracy_table(results: Sequence[OperationResult]) -> Table:
    """Each cotangent's error over its allowance (at most 1 holds): against float64 truth, and against autodiff."""
    dtypes = list(results[0].reports)
    short = {"float64": "f64", "float32": "f32", "bfloat16": "bf16", "float16": "f16"}
    columns = [(t, against) for t in dtypes for against in ("accuracy", "autodiff") if (t, against) != SAME]
    names = {"accuracy": "truth", "autodiff": "autodiff"}
    header = ["operation", "argument", *(f"{short[t]} {names[against]}" for t, against in columns)]
    rows = []
    for result in results:
        for argument in result.row.differentiable:
            cells = [_ratio(result.reports[dtype], against, argument) for dtype, against in columns]
            failed = any(row.argument == argument for row in result.failures)
            rows.append([result.name, argument, *cells, "FAIL" if failed else "ok"])
        broken = [row for row in result.failures if not row.argument]
        rows += [[result.name, "", *[""] * len(columns), f"FAIL: {r.note}"] for r in broken[:1]]
    return Table([*header, "verdict"], rows)


def _ratio(report: verify.Report, against: str, argument: str) -> str:
    """The largest error over its allowance among a property's rows for one argument."""
    shares = [_share(row) for row in report.of(against) if row.argument == argument]
    return f"{max(shares):.3f}" if shares else ""


def _share(row: verify.Row) -> float:
    """A row's error over its allowance; 0 where nothing was measured."""
    return row.error / row.allowed if row.error and row.allowed else 0.0


def cost_table(results: Sequence[OperationResult]) -> Table:
    """The document's backward FLOPs, each named difference as a polynomial and a number, and XLA's count."""
    rows = []
    for result in results:
        lowered = result.priced.reconciliation.lowered
        differences = "; ".join(f"{n:+,} {cause}" for cause, n in _differences(result).items())
        rows.append(
            [
                result.name,
                result.row.published_flops or NONE,
                f"{evaluate(result.row.published_flops, result.dims):,}" if result.row.published_flops else NONE,
                f"{lowered.flops:,}",
                f"{lowered.transcendentals:,}",
                str(result.priced.unexplained),
                differences,
            ]
        )
    header = ["operation", "document's formula", "document", "XLA flops", "XLA transc.", "unexplained", "differences"]
    return Table(header, rows)


def _differences(result: OperationResult) -> dict[str, int]:
    """Causes by which XLA's FLOPs are not the document's: the row's, then the lowering's, loops taken together."""
    causes = {cause: evaluate(term, result.dims) for cause, term in result.row.adjustments.items()}
    for step in result.priced.reconciliation.steps:
        if (step.figure, step.start) == ("flops", "counted"):
            for name, n in step.causes.items():
                kind = name.partition(" instead of")[0]
                causes[kind] = causes.get(kind, 0) + n
    return causes
