"""Results of `refgrad verify`: every rule's errors and costs, and every parameter's gradient in a small GPT-2."""

from refgrad.models import gpt2
from refgrad.models.networks import NETWORKS
from refgrad.ops import TABLE
from refgrad.report import model, networks, operations
from refgrad.report.sections.section import Section, Shown
from refgrad.report.text import standard_library_ids
from refgrad.rule_sets import rule_set

BATCH, SEQUENCE = 2, 24
DTYPES = {False: ("float64", "float32", "bfloat16", "float16"), True: ("float32",)}


def rules(kind: str, quick: bool) -> Section:
    """The cotangents of the "derived" or "fused" operations against truth and autodiff, and their FLOPs to XLA's."""
    config = gpt2.Config()
    dims = operations.dimensions(config, BATCH, SEQUENCE)
    chosen = [row for row in TABLE.values() if row.package == rule_set(kind).packages[-1]]
    results = [operations.verify_operation(row.name, dims, DTYPES[quick]) for row in chosen]
    failures = [line for result in results for line in result.complaints]
    at = ", ".join(f"{name}={value}" for name, value in dims.items())
    return Section(
        "Fused rules: fewer bytes, less time" if rule_set(kind).fused else "The rule of every operation",
        data={
            "shown": [
                Shown(
                    "Largest error of each cotangent over its allowance: at most 1 holds",
                    operations.accuracy_table(results),
                ),
                Shown(f"Backward FLOPs at {at}", operations.cost_table(results)),
            ],
            "texts": failures,
        },
        about="Truth is autodiff of the same function with its rules taken out, evaluated in float64 all the way "
        "inside; the allowance grows with the rounding error of the dtype and the longest sum that feeds a result.",
        ok=all(result.ok for result in results),
    )


def small_networks(quick: bool) -> Section:
    """The documents' small networks: every gradient, and both passes from their operations' rows to XLA."""
    compared = [dtype for dtype in DTYPES[quick] if dtype in model.BOUNDS]
    results = [networks.verify_network(name, network, compared) for name, network in NETWORKS.items()]
    shown = Shown("Largest relative difference of a gradient to autodiff's, and FLOPs", networks.network_table(results))
    unexplained = [(one.name, priced) for one in results for priced in one.passes.values() if priced.unexplained]
    ways = [f"{name}\n{priced.reconciliation}" for name, priced in unexplained]
    ok = all(result.ok for result in results)
    return Section("The documents' small networks", {"shown": [shown], "texts": ways}, ok=ok)


def parameters(quick: bool) -> Section:
    """Every parameter's gradient in a small GPT-2 on real text, and the whole backward pass's cost."""
    config = gpt2.Config()
    ids = standard_library_ids(BATCH, SEQUENCE)
    errors = {t: model.gradient_errors(config, *ids, t) for t in DTYPES[quick] if t in model.BOUNDS}
    found = model.parameter_results(config, errors)
    reconciliation = model.model_pass("backward", config, BATCH, SEQUENCE, scan=False).reconciliation
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
