"""Special points and odd shapes: the rows that fail at variants of the arguments, and at other sizes of them.

A variant changes values alone. It is judged by exact truth for one cotangent, on the programs that are compiled
already. Rounding is blamed on the rule only where the function itself is accurate. A size is a check of its own.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from refgrad.jaxpr.avals import is_float
from refgrad.jaxpr.programs import equations
from refgrad.jaxpr.versions import is_rule
from refgrad.verify import special
from refgrad.verify.allowance import C
from refgrad.verify.blame import blame
from refgrad.verify.case import LARGEST, FunctionCase
from refgrad.verify.exact_oracle import SWEEP
from refgrad.verify.numbers import NOISE, difference, errors, largest, sample, to_wide
from refgrad.verify.oracle import Leaves
from refgrad.verify.properties.accuracy import first_draw
from refgrad.verify.report import FAIL, Row
from refgrad.verify.special import MOST, SpecialArguments

OPERATIONS = 2 * 10**7  # scalar operations of exact arithmetic for all variants together
CONSTANTS = 4  # of the program, tried as values of the arguments
ASIDE = 1 / 8  # relative distance of values beside them
DIGITS = 1e-6  # relative error of the function in float64 beyond which its rule is not judged in float64
FLOOR = 1e-7  # of an output, relative to the largest one: below it, its own relative error says nothing
BETTER = 4  # times smaller: an error of autodiff beside which the rule's rounding is a fault


class Swept(NamedTuple):
    """The rows that failed, one line on all that was tried, and what time did not allow."""

    rows: list[Row]
    fact: str
    left_out: list[str]


def at_variants(case: FunctionCase, only: str = "") -> Swept:
    """Judge the variants of the arguments; `only` is the label of one of them.

    Raises ValueError for the label of no variant.
    """
    if reason := _obstacle(case):
        return Swept([], f"left out: {reason}", [])
    every = [v for v in special.variants(case.subject, _constants(case)) if _inside(case, v)]
    most = min(MOST, len(every), int(OPERATIONS / _operations(case)))
    tried = [v for v in every if v.label == only] if only else sample(every, most) if most > 1 else []
    if only and not tried:
        raise ValueError(f"no variant {only!r} of these arguments: there are {', '.join(v.label for v in every)}")
    found: dict[str, list[Row] | None] = {}
    for variant in tried:
        case.clock.doing = f"sweep, {variant.label}"
        if not case.clock.over:
            found[variant.label] = _judged(case, variant, OPERATIONS / max(most, 1))
    rows = [row for failures in found.values() for row in failures or ()]
    judged = sum(failures is not None for failures in found.values())
    failed = len({row.variant for row in rows})
    outcome = f"{failed} of {judged} variants of the arguments fail" if failed else f"{judged} variants hold"
    more = f"; the function is not defined at {len(found) - judged} others" if judged < len(found) else ""
    return Swept(rows, outcome + more, ["sweep"] if len(found) < len(tried) else [])


def _inside(case: FunctionCase, variant: SpecialArguments) -> bool:
    """True where every argument lies in its range."""
    ranges = (case.within.get(i) for i in case.subject.floats)
    pairs = [(r, to_wide(x)) for r, x in zip(ranges, variant.diff, strict=True) if r]
    return all(bool(np.all((low < x) & (x < high))) for (low, high), x in pairs)


def _obstacle(case: FunctionCase) -> str:
    """The reason why variants cannot be judged; empty where they can."""
    if not case.rules:
        return "it holds no rule"
    if not case.jitted:
        return "the rule cannot be compiled"
    if not case.own.exact.whole and case.reference_vjp is None:
        return f"it needs exact arithmetic: {case.own.exact.why}"
    return ""


def _operations(case: FunctionCase) -> float:
    """The scalar operations of one variant, at least: a gradient under each trace."""
    lanes = {id(lane): lane for lane in (case.own, case.lane)}.values()
    return 1 + SWEEP * sum(lane.exact.truth.operations for lane in lanes if lane.exact.truth)


def _constants(case: FunctionCase) -> list[float]:
    """Return numbers at which the program may branch: its scalar constants, and some to either side; of both signs."""
    truth = case.own.exact.truth
    if truth is None:
        return []
    literals = (v.val for eqn in equations(truth.program) for v in eqn.invars if isinstance(v, Literal))
    numbers = dict.fromkeys(abs(float(x)) for x in literals if np.ndim(x) == 0 and is_float(x) and np.isrealobj(x))
    found = [x for x in numbers if np.isfinite(x) and x not in special.SIMPLE][:CONSTANTS]
    return [sign * step * x for step in (1, 1 + ASIDE, 1 - ASIDE) for x in found for sign in (1, -1)]


def _judged(case: FunctionCase, variant: SpecialArguments, operations: float) -> list[Row] | None:
    """Return the rows that fail at a variant; None where the function is not defined, or nothing is decided."""
    values = [to_wide(y) for y in case.primal(variant.diff, variant.rest)]
    if any(np.isnan(y).any() for y in values):
        return None
    finite = all(np.isfinite(y).all() for y in values)
    other = case.at(variant.diff, variant.rest, operations) if finite else None
    if finite and other is None:
        return None
    rows = [*_values(case, variant, values, other), *(_gradients(other, values) if other else ())]
    return [dataclasses.replace(row, variant=variant.label) for row in rows]


def _values(case: FunctionCase, variant: SpecialArguments, values: Leaves, other: FunctionCase | None) -> Iterator[Row]:
    """The outputs of `_fwd` that differ from the function's own by more than the function itself errs."""
    found = [to_wide(y) for y in case.rule(variant.diff, variant.rest, case.cotangent(0))[0]]
    truth = _outputs(other) if other else values
    if any(_subnormal(x) for x in variant.diff):
        return  # one of the two programs may flush it to 0
    for k, (fwd, own, true, allowed) in enumerate(zip(found, values, truth, case.allowed_values, strict=True)):
        scale = largest(own) or 1.0
        error, noise = errors(fwd, own) / scale, C * errors(own, true) / scale
        worst = difference(fwd, own, skip=error <= np.maximum(allowed, np.where(noise <= LARGEST, noise, 0.0)))
        if worst.index is not None:
            label = "output" if len(values) == 1 else f"output {k}"
            note = "_fwd returns another value than the function"
            yield Row("value", label, FAIL, **worst.cells(), allowed=allowed, note=note)


def _outputs(other: FunctionCase) -> Leaves:
    """The true outputs: exact, or those in float64."""
    return other.own.exact.outputs() or other.rule_wide(other.diff, other.rest, other.drawn(0))[0]


def _gradients(other: FunctionCase, values: Leaves) -> list[Row]:
    """The failing rows that are not the function's own rounding, nor that of autodiff around the rules."""
    failed = [row for row in first_draw(other) if row.failed and not _indefinite(other, row)]
    if not failed:
        return []
    truth = _outputs(other)
    wide = other.rule_wide(other.diff, other.rest, other.drawn(0))[0] if other.narrow else values
    wrong = {row.argument for row in failed if row.property == "float64" and not other.rounded}
    flushed = any(_subnormal(to_wide(x)) for x in other.diff)
    kept = []
    for row in failed:
        if row.property != "points" and row.argument in wrong and not flushed:
            fault = _off(wide, truth) <= DIGITS or not np.isfinite(row.got or 0.0)
        else:
            fault = _off(values, truth) <= LARGEST and (row.property == "points" or _worse(other, row))
        if fault:
            kept.append(row)
    return [] if _inherited(other, kept) else kept


def _indefinite(other: FunctionCase, row: Row) -> bool:
    """True where an argument is infinite, and autodiff is not finite either: 0 · ∞ of a limit that nobody takes."""
    if row.index is None or all(np.isfinite(to_wide(x)).all() for x in (*other.diff, *filter(is_float, other.rest))):
        return False
    return other.first.autodiff is None or not np.isfinite(_leaf(other, row, other.first.autodiff)[row.index])


def _leaf(other: FunctionCase, row: Row, leaves: Leaves) -> np.ndarray:
    return leaves[other.subject.arguments.index(row.argument)]


def _off(values: Leaves, truth: Leaves) -> float:
    """The largest relative error of an output, entry by entry: above a floor of rounding in the largest one."""
    worst = 0.0
    for y, t in zip(values, truth, strict=True):
        with np.errstate(all="ignore"):
            excess = errors(y, t) / np.maximum(np.abs(t), FLOOR * largest(t))
        worst = max(worst, float(np.max(np.where(np.isnan(excess), 0.0, excess), initial=0.0)))
    return worst


def _worse(other: FunctionCase, row: Row) -> bool:
    """True where the rule is not finite, or autodiff is better by far, and by more than the function's last places.

    Subnormal arguments may be flushed to 0.
    """
    if row.got is None or not np.isfinite(row.got) or other.first.autodiff is None:
        return True
    autodiff, truth = _leaf(other, row, other.first.autodiff), _leaf(other, row, other.points.truth)
    if any(_subnormal(x) for x in other.diff):
        return False
    with np.errstate(invalid="ignore"):
        off = largest(np.where(np.isnan(truth), 0.0, autodiff - truth))
    i = other.subject.arguments.index(row.argument)
    last = NOISE * float(jnp.finfo(other.diff[i].dtype).eps) * other.own_scale[i]
    return bool(max(BETTER * off, last) < abs(row.got - truth[row.index]))


def _subnormal(x: Any) -> bool:
    size = np.abs(to_wide(x))
    return bool(np.any((size > 0) & (size < float(jnp.finfo(x.dtype).tiny))))


def _inherited(other: FunctionCase, rows: list[Row]) -> bool:
    """True where autodiff gives the same as the rules, and no rule is wrong in its place: the fault lies outside."""
    if not rows or is_rule(other.subject.f) or other.first.autodiff is None:
        return False
    for row in rows:
        autodiff = _leaf(other, row, other.first.autodiff)[row.index]
        if errors(np.asarray(row.got), autodiff) > LARGEST * abs(row.got or 0.0):
            return False
    return blame(other.subject.f, *other.subject.args).ok
