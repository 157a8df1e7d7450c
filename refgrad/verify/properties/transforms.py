"""JAX's transformations: the rule inside each gives what the rule alone gives.

Compared with the compiled rule called once per entry. What the plain forward cannot do either (a kernel that does not
vmap, a mesh inside a mesh) is "not available", with JAX's reason.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from refgrad.jaxpr.scaffold import scaffold
from refgrad.verify.case import FunctionCase
from refgrad.verify.numbers import sample, to_wide
from refgrad.verify.oracle import Leaves, first_line
from refgrad.verify.properties.structure import leak
from refgrad.verify.report import COMPILER, FAIL, OK, UNAVAILABLE, Row
from refgrad.verify.subject import Flat, pullback

COPIES = 2  # entries along a mapped or scanned axis
PLACEMENTS = 16  # of a new axis in one argument alone: what every rule has; see `FunctionCase.at_most`


def eager(case: FunctionCase) -> Iterator[Row]:
    """The rule without jit against the rule under jit. Where they differ, the traced program says which is wrong."""
    rows = list(inside(case, "eager", "", lambda flat: pullback(flat)(case.diff, case.rest, case.cotangent(0))[1]))
    if any(row.failed and row.error is not None for row in rows) and case.uncompiled is not None:
        traced = _rows(case, "eager", "", case.uncompiled[0], rows_of(case))
        note = "XLA's compiled program gives another gradient than its own steps one by one: not the rule's fault"
        if any(row.failed for row in traced):
            rows = [dataclasses.replace(r, verdict=COMPILER, note=note) if r.failed else r for r in rows]
    yield from rows


def vmap(case: FunctionCase) -> Iterator[Row]:
    """A new axis at every position of each argument alone, and first and last in all of them together."""
    leaves = [*case.diff, *case.rest]
    names = [*case.subject.arguments, *(case.subject.names[i] for i in case.subject.others)]
    ranks = [np.ndim(x) for x in leaves]
    plans: list[dict[int, int]] = [{i: axis} for i, rank in enumerate(ranks) for axis in range(rank + 1)]
    total, plans = len(plans), sample(plans, case.at_most(PLACEMENTS))
    if len(leaves) > 1:
        together = [dict.fromkeys(range(len(leaves)), 0), dict(enumerate(ranks))]
        plans = [plans[0], together[1]] if case.long else [*plans, *together]
    rows, found = [], _together(case, plans)
    for k, plan in enumerate(plans):
        where = ", ".join(f"{names[i]} at {axis}" for i, axis in plan.items())
        mapped = (lambda _, k=k: found[k]) if found else (lambda flat, p=plan: _mapped(case, flat, [p])[0])
        rows += inside(case, "vmap", f"new axis in {where}", mapped, _entries(case, plan))
    tried = sum(len(plan) == 1 for plan in plans)
    alone = f"{tried} of {total} placements of a new axis" if total > tried else "every placement"
    yield from summed_up(rows, f"{alone}, alone and together")


def scan(case: FunctionCase) -> Iterator[Row]:
    """The gradient of a scan whose body calls the function: the cotangents of its steps add up."""
    cts = _cotangents(case)

    def through(flat: Flat) -> list:
        def steps(diff, rest):
            return lax.scan(lambda carry, _: (carry, flat(diff, rest)), None, None, length=COPIES)[1]

        return scaffold(pullback(steps))(case.diff, case.rest, cts)[1]

    each = [pulled(case, case.diff, case.rest, k) for k in range(COPIES)]
    with np.errstate(invalid="ignore"):
        sums = [np.sum(np.stack(g), 0) for g in zip(*each, strict=True)]
    yield from inside(case, "scan", "", through, sums)


def checkpoint(case: FunctionCase) -> Iterator[Row]:
    """The rule inside `jax.checkpoint`."""
    own = (case.diff, case.rest, case.cotangent(0))
    yield from inside(case, "checkpoint", "", lambda flat: scaffold(pullback(jax.checkpoint(flat)))(*own)[1])


def inside(
    case: FunctionCase, name: str, where: str, transformed: Callable[[Flat], list], expected: Leaves | None = None
) -> Iterator[Row]:
    """One row per argument: `transformed(flat)` gives the cotangents; the first draw's are expected by default."""
    case.clock.check()
    try:
        got = [to_wide(g) for g in transformed(case.flat)]
    except Exception as error:  # whatever a rule, or JAX on its behalf, raises
        if note := case.lacked(error):
            yield Row(name, "", UNAVAILABLE, note=note)
            return
        try:
            transformed(case.plain)
        except Exception:
            note = f"neither for the plain forward: {first_line(error)}"
            yield Row(name, where, UNAVAILABLE, note=note)
        else:
            why = leak(error) or f"{type(error).__name__}: {first_line(error)}"
            yield Row(name, where, FAIL, note=f"{why}; the plain forward passes")
        return
    yield from _rows(case, name, where, got, expected or rows_of(case))


def summed_up(rows: list[Row], where: str) -> Iterator[Row]:
    """Every row that is not plainly ok, and the worst of the others in the place of them all."""
    fine = [row for row in rows if row.verdict == OK]
    yield from dict.fromkeys(row for row in rows if row.verdict != OK)
    if fine:
        ratios = [(row.error or 0.0) / (row.allowed or 1.0) for row in fine]
        worst = fine[int(np.argmax(ratios))]
        yield dataclasses.replace(worst, note=f"{where}, this the worst" if len(fine) > 1 else worst.note)


def pulled(case: FunctionCase, diff: list, rest: list, draw: int) -> Leaves:
    """The compiled rule's cotangents for one draw."""
    return [to_wide(g) for g in case.rule(diff, rest, case.cotangent(draw))[1]]


def rows_of(case: FunctionCase) -> Leaves:
    """The compiled rule's cotangents for the first draw."""
    return pulled(case, case.diff, case.rest, 0)


def _rows(case: FunctionCase, name: str, where: str, got: Leaves, expected: Leaves) -> list[Row]:
    rows = []
    for i, (argument, g, e) in enumerate(zip(case.subject.arguments, got, expected, strict=True)):
        if g.shape != e.shape:
            rows.append(Row(name, argument, FAIL, note=f"shape {g.shape}, but {e.shape} is expected; {where}"))
            continue
        found, allowed = case.apart(i, g, e)
        fine = found.error <= allowed
        rows.append(
            Row(name, argument, OK if fine else FAIL, **found.cells(), allowed=allowed, note="" if fine else where)
        )
    return rows


def _entry(case: FunctionCase, plan: dict[int, int], k: int) -> tuple[list, list]:
    """The floats and others that entry `k` of the mapped axis holds."""
    moved = case.arguments(k)
    return [moved[i] if i in plan else x for i, x in enumerate(case.diff)], case.rest


def _entries(case: FunctionCase, plan: dict[int, int]) -> Leaves:
    each = [pulled(case, *_entry(case, plan, k), k) for k in range(COPIES)]
    return [np.stack(g) for g in zip(*each, strict=True)]


def _together(case: FunctionCase, plans: list[dict[int, int]]) -> list[list] | None:
    """The cotangents under every plan from one program, which compiles in half of the time; None where one raises."""
    try:
        return _mapped(case, case.flat, plans)
    except Exception:  # each is then tried alone
        return None


def _mapped(case: FunctionCase, flat: Flat, plans: list[dict[int, int]]) -> list[list]:
    """The cotangents of the copies stacked as each plan says."""
    n, given = len(case.diff), []
    for plan in plans:
        entries = [[*diff, *rest] for diff, rest in (_entry(case, plan, k) for k in range(COPIES))]
        given.append([_stack(e, plan[i]) if i in plan else e[0] for i, e in enumerate(zip(*entries, strict=True))])

    def every(given, cts):
        found = []
        for plan, leaves in zip(plans, given, strict=True):
            axes = [plan.get(i) for i in range(len(leaves))]
            one = jax.vmap(lambda diff, rest, cts: pullback(flat)(diff, rest, cts)[1], (axes[:n], axes[n:], 0))
            found.append(one(leaves[:n], leaves[n:], cts))
        return found

    return scaffold(every)(given, _cotangents(case))


def _cotangents(case: FunctionCase) -> list:
    """The cotangents of the first draws, stacked."""
    return [_stack(c, 0) for c in zip(*map(case.cotangent, range(COPIES)), strict=True)]


def _stack(leaves: tuple, axis: int) -> Any:
    """The leaves along a new axis; by NumPy, which compiles nothing, where they are plain arrays of one device."""
    if any(jnp.issubdtype(x.dtype, jax.dtypes.extended) or len(x.devices()) > 1 for x in map(jnp.asarray, leaves)):
        return jnp.stack(leaves, axis)
    return np.stack(list(map(np.asarray, leaves)), axis)
