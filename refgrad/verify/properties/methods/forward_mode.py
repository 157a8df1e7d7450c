"""`jvp`, and `lin` with `linearized`: values and tangents against truth, and against reverse mode."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from refgrad.jaxpr.hiprim import HI
from refgrad.verify.method_case import MethodCase
from refgrad.verify.numbers import difference, largest, sample, to_wide
from refgrad.verify.report import FAIL, OK, Row, number

PARTS = 6  # arguments that move alone, at most
FAR = 64  # allowances between two results that are equal up to rounding, above which a rule is not linear

Push = Callable[[Callable, Sequence, Sequence], tuple[list, list]]


def jvp(case: MethodCase) -> Iterator[Row]:
    """Rows of `jvp`."""
    yield from _forward(case, "jvp", "jvp", lambda f, xs, ts: jax.jvp(f, tuple(xs), tuple(ts)))


def lin(case: MethodCase) -> Iterator[Row]:
    """Rows of `lin` for the values, of `linearized` for the tangents."""

    def push(f, xs, ts):
        outputs, pushed = jax.linearize(f, *xs)
        return outputs, pushed(*ts)

    yield from _forward(case, "lin", "linearized", push)


def _forward(case: MethodCase, primal: str, tangent: str, push: Push) -> Iterator[Row]:
    """All arguments moving, and each of them alone: the others have symbolic zeros for tangents.

    The value that a `custom_jvp` function's rule returns is not looked at: reverse mode returns the same one.
    """
    yield from case.unavailable(primal)
    if primal not in case.methods:
        return
    alone = sample(range(len(case.diff)), PARTS) if len(case.diff) > 1 and case.alone else ()

    def together(diff, rest, ts):
        return push(lambda *d: case.ruled(d, rest)[0], diff, ts)

    def apart(diff, rest, ts):
        return [
            push(lambda x, i=i: case.ruled([*diff[:i], x, *diff[i + 1 :]], rest)[0], [diff[i]], [ts[i]])[1]
            for i in alone
        ]

    moves = [case.tangents, *_others(case.tangents)]
    found, failed = case.run_at((tangent,), together, [(case.diff, case.rest, ts) for ts in moves])
    if not failed:
        single, failed = case.run((tangent,), apart, case.diff, case.rest, case.tangents) if alone else ([], [])
    yield from failed
    if failed:
        return
    (outputs, tangents), *more = found
    more = [pushed for _, pushed in more]
    if case.kind == HI:
        expected = case.values(case.diff, case.rest)[: len(outputs)]
        yield from case.compare_values(primal, outputs, expected, "value")
    linear = list(_linearity(case, tangent, tangents, more))
    cause = next((row.cause for row in linear if row.failed), "")
    rows = list(case.compare_tangents(tangent, outputs, tangents, case.tangents, ""))
    for i, moved in zip(alone, single, strict=True):
        only = [t if j == i else np.zeros_like(t) for j, t in enumerate(case.tangents)]
        rows += case.compare_tangents(tangent, outputs, moved, only, f"{case.names[i]} alone moving")
    yield from linear
    yield from (dataclasses.replace(row, cause=cause) if row.failed and cause else row for row in rows)
    if "vjp_bwd" in case.methods and not case.reversed[1]:
        yield from _against_reverse(case, tangent, tangents, any(row.failed for row in rows))


def _others(tangents: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """Tangents to hold a rule's linearity against: zero, −2 times the given ones, and two parts of them.

    Every entry is in one part only, so that no sum is rounded.
    """
    left = [np.where(np.arange(t.size).reshape(t.shape) % 2 == i % 2, t, 0) for i, t in enumerate(tangents)]
    left = [np.asarray(x, t.dtype) for x, t in zip(left, tangents, strict=True)]
    right = [t - x for t, x in zip(tangents, left, strict=True)]
    return [[np.zeros_like(t) for t in tangents], [-t - t for t in tangents], left, right]


def _linearity(case: MethodCase, method: str, tangents: Sequence, more: Sequence[Sequence]) -> Iterator[Row]:
    """One row per output: zero in gives zero out, −2 times the tangent −2 times as much, the parts add up."""
    where = case.place((method,))
    subject = f"the jvp rule of {case.name}" if case.kind != HI else f"`{method}` of {case.name}"
    for k, (label, own, most) in enumerate(zip(case.labels, map(to_wide, tangents), case.allowed()[0], strict=True)):
        nothing, twice, left, right = (to_wide(other[k]) for other in more)
        with np.errstate(invalid="ignore"):
            total = left + right
            tests = {
                "zero": (nothing, np.zeros_like(own), 1.0, 0.0),
                "scale": (twice, -2 * own, largest(own), FAR * most),
                "sum": (own, total, max(map(largest, (left, right, own))), FAR * most),
            }
        singular = ~np.isfinite(own)  # 0 times an infinite slope is NaN, in any rule
        found = {}
        for test, (got, expected, size, allowed) in tests.items():
            lost = singular | (~np.isfinite(got) | ~np.isfinite(expected) if test != "zero" else False)
            found[test] = difference(got, expected, lost, size or 1.0), allowed
        broken = next((test for test, (worst, allowed) in found.items() if not worst.error <= allowed), None)
        worst, allowed = found[broken or "scale"]
        note = (
            broken
            and {
                "zero": f"zero in gives {number(worst.got)}",
                "scale": f"−2 times in gives {number(worst.got)} for {number(worst.expected)}",
                "sum": f"a sum in gives {number(worst.got)}, its terms {number(worst.expected)} together",
            }[broken]
        )
        cause = f"{subject} is not linear in the tangent: {note}" if note else ""
        head = method, f"{case.name}: linearity of {label}"
        verdict = FAIL if broken else OK
        yield Row(*head, verdict, **worst.cells(), allowed=allowed, note=cause, where=where, cause=cause)


def _against_reverse(case: MethodCase, tangent: str, tangents: Sequence, wrong: bool) -> Iterator[Row]:
    """⟨cotangent, J·v⟩ = ⟨Jᵀ·cotangent, v⟩: where they differ and the tangents are right, the backward is wrong."""
    cts, moves, (_, pulled) = case.cotangents(), case.tangents, case.reversed[0]
    forward, reverse = _Product(cts, tangents), _Product(moves, pulled)
    scale = max(forward.scale, reverse.scale) or 1.0
    error = abs(forward.value - reverse.value) / scale
    allowed = sum(map(max, case.allowed(case.oracle.tolerance)))
    fine = error <= allowed
    note = "" if fine else f"differs from reverse mode: {f'`{tangent}`' if wrong else 'the backward'} is wrong"
    where = case.place((tangent if wrong else "vjp_bwd",))
    head = tangent, f"{case.name}: ⟨cotangent, J·v⟩", OK if fine else FAIL, None
    yield Row(*head, forward.value, reverse.value, error, allowed, note, "" if fine else where)


class _Product:
    """The real inner product of two lists of leaves, and how large it may be."""

    def __init__(self, weights: Sequence, leaves: Sequence) -> None:
        pairs = [(to_wide(w), to_wide(x)) for w, x in zip(weights, leaves, strict=True)]
        self.value = float(sum(np.real(np.sum(w * x)) for w, x in pairs))
        self.scale = float(sum(np.sum(np.abs(w)) * np.max(np.abs(x), initial=0.0) for w, x in pairs))
