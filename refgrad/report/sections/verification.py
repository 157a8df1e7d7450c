"""What `refgrad verify` finds: every rule's errors and costs, and every parameter's gradient in a small GPT-2."""

from refgrad.models import gpt2
from refgrad.ops import TABLE
from refgrad.report import model, operations
from refgrad.report.sections.section import Section, Shown, anchor, mapped, mathematics
from refgrad.report.text import standard_library_ids

BATCH, SEQUENCE = 2, 24
DTYPES = {False: ("float64", "float32", "bfloat16", "float16"), True: ("float32",)}


def rules(quick: bool) -> Section:
    """Every operation's cotangents against float64 truth and autodiff, and its FLOPs from the document to XLA."""
    config = gpt2.Config()
    dims = operations.dimensions(config, BATCH, SEQUENCE)
    results = [operations.verify_operation(row, dims, DTYPES[quick]) for row in TABLE.values()]
    failures = [report.summary() for result in results for report in result.reports.values() if not report.ok]
    accuracy = mapped(operations.accuracy_table(results), operation=anchor)
    costs = mapped(operations.cost_table(results), operation=anchor, **{"document's_formula": mathematics})
    at = ", ".join(f"{name}={value}" for name, value in dims.items())
    return Section(
        "The rule of every operation",
        data={
            "shown": [
                Shown("Largest error of each cotangent over its allowance: at most 1 holds", accuracy),
                Shown(f"Backward FLOPs at {at}", costs),
            ],
            "texts": failures,
        },
        about="Truth is autodiff of the same function with its rules taken out, evaluated in float64 all the way "
        "inside; the allowance grows with the rounding error of the dtype and the longest sum that feeds a result.",
        ok=all(result.ok for result in results),
    )


def parameters(quick: bool) -> Section:
    """Every parameter's gradient in a small GPT-2 on real text, and the whole backward pass's cost."""
    config = gpt2.Config()
    ids = standard_library_ids(BATCH, SEQUENCE)
    errors = {t: model.gradient_errors(config, *ids, t) for t in DTYPES[quick] if t in model.BOUNDS}
    found = model.parameter_results(config, errors)
    reconciliation = model.reconcile_model(config, BATCH, SEQUENCE)
    return Section(
        "The gradient of every parameter of a small GPT-2",
        data={
            "shown": [
                Shown(
                    "Relative difference of each parameter's gradient by the rules to autodiff's",
                    model.parameter_table(found),
                ),
                Shown("Its backward pass, from the document's total to XLA's count", reconciliation.table(), False),
            ]
        },
        about=f"{config}, on {BATCH} × {SEQUENCE} bytes of the Python standard library's own source.",
        ok=reconciliation.ok and all(result.ok for result in found),
    )
