"""The whole Jacobian at tiny shapes, one output at a time; and the parts of a gradient against the whole.

A rule sees which arguments are differentiated (`symbolic_zeros`) and which outputs have a cotangent: each argument
alone, and each output alone, must give what it gives among the others.
"""

from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr

from refgrad.jaxpr.scaffold import scaffold
from refgrad.verify.allowance import C
from refgrad.verify.case import UNCERTAIN, Case
from refgrad.verify.numbers import compared, errors, sample, to_wide
from refgrad.verify.oracle import Leaves, first_line
from refgrad.verify.properties.transforms import rows_of
from refgrad.verify.report import FAIL, OK, Row

OUTPUTS, INPUTS = 64, 256  # sizes up to which the whole Jacobian is compared

PARTS = 6  # arguments, and outputs, taken alone, at most


def jacobian(case: Case) -> Iterator[Row]:
    """One row per argument, its index that of the output followed by that of the entry; nothing at larger sizes."""
    size = sum(int(np.prod(a.shape)) for a in case.outputs)
    if not case.lane.entries or not 0 < size <= OUTPUTS or sum(np.size(x) for x in case.diff) > INPUTS:
        return
    rule = case.rule_wide if case.narrow else case.rule
    got, expected = [], []
    for cts in _units(case):
        case.clock.check()
        got.append([to_wide(g) for g in rule(case.diff, case.rest, cts)[1]])
        expected.append(case.lane.settled(case.lane.truth(case.diff, cts), cts))
    for i, name in enumerate(case.subject.arguments):
        ours, theirs = np.stack([g[i] for g in got]), np.stack([e[i] for e in expected])
        mask = case.points.skip[i]
        skip = np.isnan(theirs) if mask is None else np.isnan(theirs) | mask
        scale = case.scale(i, theirs)
        allowed = np.full(ours.shape, max(case.allowed_wide[i], case.lane.tolerance))
        if np.any((errors(ours, theirs) > allowed * scale) & ~skip):
            autodiff = [case.errors_wide(e, case.diff, cts)[i] for e, cts in zip(expected, _units(case), strict=True)]
            moves = np.maximum(np.maximum(case.noise[i], case.rounding_wide[i]), np.stack(autodiff))
            allowed = np.maximum(allowed, np.minimum(C * moves / scale, UNCERTAIN))
        found, allowed = compared(ours, theirs, allowed, scale, skip)
        yield Row("jacobian", name, OK if found.error <= allowed else FAIL, **found.cells(), allowed=allowed)


def parts(case: Case) -> Iterator[Row]:
    """Each argument differentiated alone, and each output with a cotangent alone."""
    whole = rows_of(case)
    if len(case.diff) > 1:
        for i in sample(range(len(case.diff)), case.at_most(PARTS)):
            name = case.subject.arguments[i]
            yield _part(case, name, f"{name} alone differentiated", [i], range(len(case.outputs)), [whole[i]])
    if len(case.outputs) > 1:
        everything = range(len(case.diff))
        for k in sample(range(len(case.outputs)), case.at_most(PARTS)):
            alone = [c if j == k else np.zeros_like(c) for j, c in enumerate(case.cotangent(0))]
            expected = [to_wide(g) for g in case.rule(case.diff, case.rest, alone)[1]]
            yield _part(case, "", f"output {k} alone with a cotangent", everything, [k], expected)


def _part(case: Case, name: str, note: str, arguments, outputs, expected: Leaves) -> Row:
    """The gradient of some outputs by some arguments, the others held constant."""

    def pull(diff, rest, cts):
        def some(*chosen):
            full = list(diff)
            for i, x in zip(arguments, chosen, strict=True):
                full[i] = x
            out = case.flat(full, rest)[0]
            return [out[k] for k in outputs]

        return jax.vjp(some, *(diff[i] for i in arguments))[1]([cts[k] for k in outputs])

    own = (case.diff, case.rest, case.cotangent(0))
    compiled = scaffold(pull)
    try:
        same = _same_program(case.rule.trace(*own).jaxpr, compiled.trace(*own).jaxpr, arguments, len(case.outputs))
        got = expected if same else [to_wide(g) for g in compiled(*own)]
    except Exception as error:  # whatever a rule raises when part of what it knows is missing
        return Row("parts", name, FAIL, note=f"{note}: {first_line(error)}")
    found = [(*case.apart(i, g, e), i) for g, e, i in zip(got, expected, arguments, strict=True)]
    worst, allowed, i = max(found, key=lambda f: f[0].error / (f[1] or 1.0))
    verdict = OK if worst.error <= allowed else FAIL
    return Row("parts", case.subject.arguments[i], verdict, **worst.cells(), allowed=allowed, note=note)


def _same_program(whole: ClosedJaxpr, part: ClosedJaxpr, arguments: Sequence[int], outputs: int) -> bool:
    """Return True where the program for some arguments computes their cotangents just as that of all of them does."""
    chosen = whole.jaxpr.replace(outvars=[whole.jaxpr.outvars[outputs + i] for i in arguments])
    consts = zip(whole.consts, part.consts, strict=False)
    return str(chosen) == str(part.jaxpr) and all(np.array_equal(a, b) for a, b in consts)


def _units(case: Case) -> Iterator[Leaves]:
    """A cotangent of 1 for each output entry in turn, 0 elsewhere."""
    zeros = [np.zeros_like(c) for c in case.drawn(0)]
    for k, zero in enumerate(zeros):
        for entry in range(zero.size):
            unit = zero.copy()
            unit.flat[entry] = 1
            yield [unit if j == k else z for j, z in enumerate(zeros)]
