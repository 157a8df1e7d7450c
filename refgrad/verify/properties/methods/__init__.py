"""Properties of single methods of a rule, by name; they yield nothing for a rule that has none.

`CHECKS` are functions from a `MethodCase` to rows, `METHODS` the same as properties of a `Case`.
"""

from collections.abc import Callable, Iterator

from refgrad.verify.case import Case
from refgrad.verify.method_case import MethodCase
from refgrad.verify.properties.methods.accumulators import accumulators, logs
from refgrad.verify.properties.methods.batching import batch
from refgrad.verify.properties.methods.dead_code import dce
from refgrad.verify.properties.methods.forward_mode import jvp, lin
from refgrad.verify.properties.methods.rematerialization import remat
from refgrad.verify.properties.methods.reverse_mode import vjp
from refgrad.verify.properties.methods.transposition import transpose
from refgrad.verify.report import Row

CHECKS: dict[str, Callable[[MethodCase], Iterator[Row]]] = {
    "dce": dce,
    "vjp": vjp,
    "jvp": jvp,
    "lin": lin,
    "batch": batch,
    "remat": remat,
    "transpose": transpose,
    "accumulators": accumulators,
    "logs": logs,
}


def of_case(check: Callable[[MethodCase], Iterator[Row]]) -> Callable[[Case], Iterator[Row]]:
    """Return the property that checks every rule of a case. A rule that fails at a kink is tried beside it."""

    def property(case: Case) -> Iterator[Row]:
        for method_case in case.method_cases:
            rows = list(check(method_case))
            if any(row.failed and row.error is not None for row in rows) and method_case.kinked:
                rows = list(check(method_case.aside))
            yield from rows

    return property


METHODS: dict[str, Callable[[Case], Iterator[Row]]] = {name: of_case(check) for name, check in CHECKS.items()}
