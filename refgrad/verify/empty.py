"""Checks that say nothing: no gradient at all, none at these arguments, or another function at every call."""

import contextlib
from collections.abc import Sequence

import jax
import numpy as np

from refgrad.jaxpr.dependence import dependence
from refgrad.verify.case import FunctionCase
from refgrad.verify.numbers import difference, largest, to_wide
from refgrad.verify.report import Row, number
from refgrad.verify.subject import pullback


def nothing(case: FunctionCase, rows: Sequence[Row]) -> str:
    """Return the reason why `rows` are about no gradient; empty where they are about one."""
    if not case.outputs:
        return "it returns no floating-point or complex array"
    for what, arrays in (("argument", case.diff), ("output", case.outputs)):
        if not any(x.size for x in arrays):
            return f"every floating {what} has size 0"
    if not any(row.property == "accuracy" for row in rows):
        return ""
    if case.reference_name or any(map(largest, case.points.truth)):  # a reference may mean no gradient
        return ""
    if not _depends(case):
        return f"no output depends on {', '.join(case.subject.arguments)}"
    if all(np.isnan(truth).all() for truth in case.points.truth):
        return undefined(case)
    return ""


def undefined(case: FunctionCase) -> str:
    """Return the sentence that the function is NaN at the given arguments; empty where it is not."""
    outputs = [to_wide(y) for y in case.rule(case.diff, case.rest, case.cotangent(0))[0]]
    count, whole = sum(int(np.isnan(y).sum()) for y in outputs), sum(y.size for y in outputs)
    if not count or any(np.isnan(to_wide(x)).any() for x in case.diff):
        return ""
    return f"its value is NaN at {count} of {whole} entries for these arguments: give it others, such as f32[3]>0"


def unsteady(case: FunctionCase) -> str:
    """Return the sentence that two calls at the same arguments differ; empty where they do not."""
    with contextlib.suppress(Exception):  # it is the failure at hand that counts
        pull = pullback(case.flat)
        calls = [jax.tree.leaves(pull(case.diff, case.rest, case.cotangent(0))) for _ in range(2)]
        apart = [difference(to_wide(one), to_wide(other)).error for one, other in zip(*calls, strict=True)]
        if any(a > b for a, b in zip(apart, (*case.allowed_values, *case.allowed), strict=True)):
            return (
                f"it is not deterministic: two calls with the same arguments differ by {number(max(apart))} of "
                "the result; take random numbers and state as arguments"
            )
    return ""


def _depends(case: FunctionCase) -> bool:
    """Return False where no differentiated argument enters an output."""
    program = jax.make_jaxpr(case.plain)(case.diff, case.rest)
    inputs = [1] * len(case.diff) + [0] * len(case.rest)
    return any(dependence(program, inputs)[: len(case.outputs)])
