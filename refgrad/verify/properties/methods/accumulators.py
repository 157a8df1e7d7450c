"""Accumulators and logs: what a backward does that adds its cotangents up in place, and tells more than these.

Each argument that is differentiated gets a value or a reference to add to, each other one nothing. A backward that
sets where it should add is right as long as nothing has been added before: so something has.
"""

from collections.abc import Iterator

import jax
import numpy as np

from refgrad.verify.method_case import MethodCase
from refgrad.verify.report import Row


def accumulators(case: MethodCase) -> Iterator[Row]:
    """Rows of `accumulators`: into references that hold something, and into values that another call has filled."""
    if "accumulators" not in case.methods or not case.sound:
        return
    first, second = case.cotangents(0), case.cotangents(1)
    sizes = [np.max(np.abs(g), initial=0.0) for g in case.oracle.cotangents(case.diff, case.rest, first)]
    entries = case.oracle.entries
    held = [(t * (m if entries else 1)).astype(t.dtype) for t, m in zip(case.tangents, sizes, strict=True)]

    def references(diff, rest, cts, held):
        refs = [jax.new_ref(jax.numpy.asarray(h)) for h in held]
        jax.vjp(lambda *d: case.ruled(d, rest)[0], *diff)[1].with_refs(*refs)(cts)
        return [ref[...] for ref in refs]

    def twice(diff, rest, first, second):
        return jax.vjp(lambda *d: [case.ruled(d, rest)[0] for _ in range(2)], *diff)[1]([first, second])

    head = ("accumulators",)
    found, failed = case.run(head, references, case.diff, case.rest, first, held, note="into references")
    yield from failed
    if not failed:
        added = [g - h for g, h in zip(found, held, strict=True)]
        yield from case.compare_cotangents(head, added, first, "into references")
    found, failed = case.run(head, twice, case.diff, case.rest, first, second, note="into values")
    yield from failed
    if not failed:
        total = [a + b for a, b in zip(first, second, strict=True)]
        yield from case.compare_cotangents(head, found, total, "into values, on top of another call's")


def logs(case: MethodCase) -> Iterator[Row]:
    """Rows of `logs`: the cotangents that come with the logs."""
    if "logs" not in case.methods or not case.sound:
        return
    cts = case.cotangents()

    def program(diff, rest, cts):
        return jax.vjp(lambda *d: case.ruled(d, rest)[0], *diff)[1].with_logs(cts)

    found, failed = case.run(("logs",), program, case.diff, case.rest, cts)
    yield from failed
    if not failed:
        cotangents, logged = found
        yield from case.compare_cotangents(
            ("logs",), cotangents, cts, f"logged: {', '.join(logged or ()) or 'nothing'}"
        )
