"""`jvp`, and `lin` with `linearized`: values and tangents against truth, and against reverse mode."""

from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from refgrad.verify.method_case import MethodCase
from refgrad.verify.numbers import to_wide
from refgrad.verify.report import FAIL, OK, Row

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
    """All arguments moving, and each of them alone: the others have symbolic zeros for tangents."""
    yield from case.unavailable(primal)
    if primal not in case.methods:
        return
    alone = range(len(case.diff)) if len(case.diff) > 1 else ()

    def program(diff, rest, ts):
        whole = push(lambda *d: case.ruled(d, rest)[0], diff, ts)
        single = [
            push(lambda x, i=i: case.ruled([*diff[:i], x, *diff[i + 1 :]], rest)[0], [diff[i]], [ts[i]]) for i in alone
        ]
        return whole, [tangents for _, tangents in single]

    found, failed = case.run((tangent,), program, case.diff, case.rest, case.tangents)
    yield from failed
    if failed:
        return
    (outputs, tangents), single = found
    yield from case.compare_values(primal, outputs, case.values(case.diff, case.rest)[: len(outputs)], "value")
    rows = list(case.compare_tangents(tangent, tangents, case.tangents, ""))
    for i, moved in zip(alone, single, strict=True):
        only = [t if j == i else np.zeros_like(t) for j, t in enumerate(case.tangents)]
        rows += case.compare_tangents(tangent, moved, only, f"{case.names[i]} alone moving")
    yield from rows
    if "vjp_bwd" in case.methods and not case.reversed[1]:
        yield from _against_reverse(case, tangent, tangents, any(row.failed for row in rows))


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
