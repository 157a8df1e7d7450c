"""`transpose`: `jax.linear_transpose` in each argument in which the rule is linear."""

from collections.abc import Iterator

import jax
import numpy as np

from refgrad.verify.method_case import MethodCase
from refgrad.verify.numbers import difference
from refgrad.verify.report import UNAVAILABLE, Row

LINEAR = 1e-9  # relative: float64


def transpose(case: MethodCase) -> Iterator[Row]:
    """Rows of `transpose`."""
    if "transpose" not in case.methods:
        return
    cts = case.cotangents()
    linear = [i for i in range(len(case.diff)) if _is_linear(case, i)]
    expected = case.oracle.cotangents(case.diff, case.rest, cts)
    rows: list[Row] = []
    raised: list[Row] = []
    for i in linear:

        def pull(diff, rest, cts, i=i):
            one = lambda x: case.ruled([*diff[:i], x, *diff[i + 1 :]], rest)[0]  # noqa: E731
            return jax.linear_transpose(one, diff[i])(cts)

        found, failed = case.run(("transpose",), pull, case.diff, case.rest, cts, note=case.names[i])
        raised += failed
        if not failed and case.oracle.entries:
            limits = case.allowed(case.oracle.tolerance)[1][i]
            head = "transpose", ("transpose",), [case.names[i]]
            rows += case.compare(*head, found, [expected[i]], [limits], [case.diff[i]])
    yield from rows
    yield from raised if not rows else ()
    if not linear:
        yield Row("transpose", case.name, UNAVAILABLE, note="linear in none of its arguments")


def _is_linear(case: MethodCase, i: int) -> bool:
    """Return True where the forward in argument `i` is its own derivative: f(x) = J(a)·x for an x that is not a."""
    x = case.moved(1)[0][i]
    values = case.values([*case.diff[:i], x, *case.diff[i + 1 :]], case.rest)[: len(case.outputs)]
    tangents = [x if j == i else np.zeros_like(t) for j, t in enumerate(case.tangents)]
    slopes = case.pushed.jvp(case.diff, case.rest, tangents)
    return all(difference(s, v).error <= LINEAR for s, v in zip(slopes, values, strict=True))
