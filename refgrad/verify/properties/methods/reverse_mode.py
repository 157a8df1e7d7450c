"""`vjp_fwd` and `vjp_bwd`: values and cotangents against truth, whole and in parts.

The backward is told which arguments are differentiated, and gets a symbolic zero for an output that has no cotangent:
each argument alone, and each output alone, must give what it gives among the others.
"""

from collections.abc import Iterator

import jax
import numpy as np

from refgrad.verify.method_case import MethodCase
from refgrad.verify.report import Row


def vjp(case: MethodCase) -> Iterator[Row]:
    """Rows `vjp_fwd` for the values, rows `vjp_bwd` for the cotangents."""
    yield from case.unavailable("vjp_fwd")
    if "vjp_fwd" not in case.methods:
        return
    cts = case.cotangents()
    found, failed = case.reversed
    yield from failed
    if failed:
        return
    outputs, cotangents = found
    yield from case.compare_values("vjp_fwd", outputs, case.values(case.diff, case.rest)[: len(outputs)])
    yield from case.compare_cotangents(("vjp_bwd",), cotangents, cts, "")
    yield from _parts(case, cts)


def _parts(case: MethodCase, cts: list[np.ndarray]) -> Iterator[Row]:
    """Each argument differentiated alone, and each output with a cotangent alone."""
    inputs = range(len(case.diff)) if len(case.diff) > 1 else ()
    outputs = range(len(cts)) if len(cts) > 1 else ()

    def program(diff, rest, cts):
        def argument(i):
            one = lambda x: case.ruled([*diff[:i], x, *diff[i + 1 :]], rest)[0]  # noqa: E731
            return jax.vjp(one, diff[i])[1](cts)

        def output(k):
            return jax.vjp(lambda *d: case.ruled(d, rest)[0][k], *diff)[1](cts[k])

        return [argument(i) for i in inputs], [output(k) for k in outputs]

    found, failed = case.run(("vjp_bwd",), program, case.diff, case.rest, cts)
    yield from failed
    if failed:
        return
    alone = [ct for (ct,) in found[0]]
    if alone:
        yield from case.compare_cotangents(("vjp_bwd",), alone, cts, "each argument alone differentiated")
    for k, cotangents in zip(outputs, found[1], strict=True):
        single = [c if j == k else np.zeros_like(c) for j, c in enumerate(cts)]
        note = f"{case.labels[k]} alone with a cotangent"
        yield from case.compare_cotangents(("vjp_bwd",), cotangents, single, note)
