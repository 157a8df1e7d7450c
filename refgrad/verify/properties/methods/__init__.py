"""Properties of single methods of a rule, by name; they yield nothing for a rule that has none.

`CHECKS` are functions from a `MethodCase` to rows, `METHODS` the same as properties of a `FunctionCase`.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from refgrad.jaxpr.rules import JVP
from refgrad.verify import method_cases
from refgrad.verify.case import FunctionCase
from refgrad.verify.method_case import MethodCase
from refgrad.verify.properties.accuracy import first_draw
from refgrad.verify.properties.methods.accumulators import accumulators, logs
from refgrad.verify.properties.methods.batching import batch
from refgrad.verify.properties.methods.dead_code import dce
from refgrad.verify.properties.methods.forward_mode import jvp, lin
from refgrad.verify.properties.methods.rematerialization import remat
from refgrad.verify.properties.methods.reverse_mode import vjp
from refgrad.verify.properties.methods.transposition import transpose
from refgrad.verify.report import OK, Row

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


def of_case(check: Callable[[MethodCase], Iterator[Row]]) -> Callable[[FunctionCase], Iterator[Row]]:
    """Return the property that checks every rule of a case. A rule that fails at a kink is tried beside it.

    A `custom_jvp` rule inside a function may count on how that calls it: it may drop a tangent that is always zero, or
    that of an output which nothing reads. Where one fails, the forward mode of the whole function decides; where that
    has none, its cotangents decide about tangents that are dropped, and about nothing else.
    """

    def property(case: FunctionCase) -> Iterator[Row]:
        whole: list[Row] = []
        for method_case in case.method_cases:
            rows = _rows(check, method_case)
            if method_case.kind == JVP and not hasattr(case.subject.f, "defjvp") and any(row.failed for row in rows):
                whole = whole or _rows(check, method_cases.whole(case.flat, case.plain, case.subject, method_case))
                if not any(row.failed for row in whole):
                    rows = whole
                elif _raised(whole) and _dropped(rows) and not any(row.failed for row in first_draw(case)):
                    note = "dropped, and the cotangents of the whole function are right without it"
                    rows = [dataclasses.replace(row, verdict=OK, note=note) if row.failed else row for row in rows]
            yield from rows

    return property


def _raised(rows: Sequence[Row]) -> bool:
    """Return True where a method raises: JAX has no forward mode of a `custom_vjp` function."""
    return any(row.failed and row.error is None for row in rows)


def _dropped(rows: Sequence[Row]) -> bool:
    """Return True where every tangent that is wrong is 0."""
    return all(row.got == 0 for row in rows if row.failed)


def _rows(check: Callable[[MethodCase], Iterator[Row]], case: MethodCase) -> list[Row]:
    rows = list(check(case))
    if any(row.failed and row.error is not None for row in rows) and case.kinked:
        rows = list(check(case.aside))
    return rows


METHODS: dict[str, Callable[[FunctionCase], Iterator[Row]]] = {name: of_case(check) for name, check in CHECKS.items()}
