"""Causes of the difference between a jaxpr's count and XLA's count of its lowering, each found in the two programs.

A cause is named here only where both texts bear it out: an equation that may be folded *and* is missing from the HLO,
a loop's own counter, a custom call, a loop whose trips are known. A remainder is never given a name.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from refgrad.cost.equations import Choice, Equation, equations
from refgrad.cost.folding import folded
from refgrad.cost.hlo import HloCost, HloRow
from refgrad.cost.hlo.walk import with_runs
from refgrad.cost.programs import is_sharding_mark, own_programs
from refgrad.cost.types import Count
from refgrad.cost.walk import Walker
from refgrad.cost.xla import XlaCost
from refgrad.jaxpr.calls import Form
from refgrad.jaxpr.versions import opened


class Cause(NamedTuple):
    """A named part of a difference, in FLOPs and in transcendentals; it is what the later figure has on top."""

    name: str
    flops: int
    transcendentals: int


def lowering_causes(jaxpr: Any, count: Count, answer: XlaCost) -> list[Cause]:
    """Named causes of (XLA's lowered count − the jaxpr's count), in the order of the way down."""
    expected, choices = equations(jaxpr)
    walked = _as_chosen(answer.hlo, choices)
    causes = [
        *map(Cause._make, folded(expected, walked.program_rows)),
        *_devices(count),
        *_own_programs(expected, answer),
        *_mixed_dots(walked.program_rows),
        *_sharding_marks(walked),
        *_branches(walked),
        *_loop_counters(walked.counter_rows),
        *_once(walked.rows),
        *_rounding(answer),
    ]
    return _merged(causes)


def compiling_causes(lowered: XlaCost, compiled: XlaCost) -> list[Cause]:
    """Named causes of (XLA's compiled count − its lowered one): the compiler's changes, by opcode."""
    (r0, r1), (s0, s1) = (_round_off(x) for x in (lowered, compiled))
    return _merged([*rewriting_causes(lowered.hlo.rows, compiled.hlo.rows), Cause("float32 sums", s0 - r0, s1 - r1)])


def rewriting_causes(lowered: Iterable[HloRow], compiled: Iterable[HloRow], executed: bool = False) -> list[Cause]:
    """Named causes of the difference of two modules' rows, counted once, or as often as they are executed.

    An instruction keeps the scope that it was traced under. Where the compiler has it in more computations than the
    lowered module, as fusions compute what they read, it is computed again.
    """
    before, after = (_by_operation(rows, executed) for rows in (lowered, compiled))
    causes = []
    for key in dict.fromkeys((*before, *after)):
        a, b = before.get(key, _NONE), after.get(key, _NONE)
        if not a.places:
            how = "added"
        elif not b.places:
            how = "removed"
        else:
            again = len(b.places) > len(a.places) and b.flops > a.flops
            how = "computed again in other fusions" if again else "rewritten"
        causes.append(Cause(f"compiler: {key[1]} {how}", b.flops - a.flops, b.transcendentals - a.transcendentals))
    return _merged(causes)


class _Operation(NamedTuple):
    """The FLOPs and transcendentals of one opcode at one scope, and the computations that hold it."""

    flops: int
    transcendentals: int
    places: frozenset[str]


_NONE = _Operation(0, 0, frozenset())


def _by_operation(rows: Iterable[HloRow], executed: bool) -> dict[tuple[str, str], _Operation]:
    found: dict[tuple[str, str], _Operation] = {}
    for row in rows:
        opcode, times = row.instruction.opcode, row.times if executed else 1
        product = opcode == "convolution" and row.primitive == "dot_general"  # XLA:TPU has one instruction for both
        key = row.scope, "dot" if product else opcode
        flops, transcendentals, places = found.get(key, _NONE)
        flops, transcendentals = flops + row.flops * times, transcendentals + row.transcendentals * times
        found[key] = _Operation(flops, transcendentals, places | {row.computation})
    return found


def _loop_counters(rows: Iterable[HloRow]) -> Iterator[Cause]:
    for row in rows:
        yield Cause("the scan's own counter and index", row.flops * row.times, row.transcendentals * row.times)


def _devices(count: Count) -> Iterator[Cause]:
    one = count.per_device
    yield Cause("shard_map counted for one device", one.flops - count.flops, one.transcendental - count.transcendental)


def _own_programs(expected: list[Equation], answer: XlaCost) -> Iterator[Cause]:
    """Equations that became a library call or a loop: what HLO has for them, in place of their own count."""
    for own in own_programs(expected, answer.hlo, answer.platform):
        yield Cause(f"{own.primitive} is {own.what}", own.flops, own.transcendentals)


def _mixed_dots(rows: Iterable[HloRow]) -> Iterator[Cause]:
    """A product of two dtypes converts an operand first, which the jaxpr does not show."""
    for row in rows:
        if row.primitive == "dot_general" and row.instruction.opcode == "convert":
            yield Cause("dot_general converts an operand of another dtype", row.flops * row.times, 0)


def _sharding_marks(walked: HloCost) -> Iterator[Cause]:
    for target, row in walked.custom_calls():
        if is_sharding_mark(target):
            yield Cause(f"{target} only marks a sharding, −1 each", row.flops * row.times, 0)


def _as_chosen(walked: HloCost, choices: list[Choice]) -> HloCost:
    """The walk with the branches and the trips that the program is known to take, where HLO alone does not tell."""
    ordered = choices[::-1]
    branches = _taken(walked, [one for one in ordered if one.form is Form.BRANCHES])
    loops = [place for place, loop in enumerate(walked.loops) if loop.trips is None]
    untold = [one for one in ordered if one.form is Form.WHILE and (not one.runs or len(one.each) > 1)]
    trips = {place: one.runs[0] for place, one in zip(loops, untold, strict=False) if one.runs}
    if len(loops) != len(untold):  # which is which is not known
        trips = {}
    return with_runs(walked, branches, trips) if branches or trips else walked


def _taken(walked: HloCost, choices: list[Choice]) -> dict[int, tuple[int, ...]]:
    """Return for each conditional in HLO, by its place, how often its branches are taken, where that is known."""
    waiting = [(one, _flops(one)) for one in choices] if any(one.runs for one in choices) else []
    runs: dict[int, tuple[int, ...]] = {}
    for place, conditional in enumerate(walked.conditionals):
        n = len(conditional.branches)
        alike = [one for one in waiting if len(one[1]) == n]
        some_folded = len(alike) > sum(len(later.branches) == n for later in walked.conditionals[place:])
        flops = [branch.flops for branch in conditional.branches]
        # Only a conditional whose branch is known can be folded, so that one that is not known comes first.
        alike.sort(key=lambda one: (one[1] != flops, some_folded and bool(one[0].runs)))
        if alike:
            waiting.remove(alike[0])
            runs[place] = alike[0][0].runs
    return {place: n for place, n in runs.items() if n}


def _flops(choice: Choice) -> list[int]:
    """FLOPs of each branch, as the jaxpr has them."""
    branches = choice.eqn.params["branches"]
    walked = (Walker("count").walk(branch, (True,) * len(opened(branch).outvars))[0] for branch in branches)
    return [sum(cost.matmul + cost.elementwise for cost in costs.sites.values()) for costs in walked]


def _branches(walked: HloCost) -> Iterator[Cause]:
    """The jaxpr's count takes one branch, the costliest in all, or those that are known to run; XLA the costliest."""
    for conditional in walked.conditionals:
        branches, costliest = (
            conditional.branches,
            [max(figures) for figures in zip(*conditional.branches, strict=True)],
        )
        if conditional.runs:
            name, once = f"counted as its costliest branch, though others are known to run: {conditional.scope}", 1
            counted = [branch for branch, n in zip(branches, conditional.runs, strict=True) if n]
        else:
            name, once = f"each figure from its own costliest branch: {conditional.scope}", conditional.times
            counted = [max(branches, key=sum)]
        more = [n - sum(figures) for n, figures in zip(costliest, zip(*counted, strict=True), strict=True)]
        yield Cause(name, *(n * once * bool(conditional.times) for n in more))


def _once(rows: Iterable[HloRow]) -> Iterator[Cause]:
    for row in rows:
        if row.times != 1:
            more = 1 - row.times
            name = f"loop counted once instead of {row.times} times: {_loop_scope(row.scope)}"
            yield Cause(name, row.flops * more, row.transcendentals * more)


def _loop_scope(scope: str) -> str:
    at = scope.rfind("/while/")
    return scope[: at + len("/while")] if at >= 0 else scope


def _rounding(answer: XlaCost) -> Iterator[Cause]:
    yield Cause("float32 sums", *_round_off(answer))


def _round_off(answer: XlaCost) -> tuple[int, int]:
    """Return the error of XLA's float32 sums (FLOPs, transcendentals), by the walk's own replay."""
    walked = answer.hlo
    flops, transcendentals = map(round, walked.replayed)
    return flops - walked.flops, transcendentals - walked.transcendentals


def _merged(causes: Iterable[Cause]) -> list[Cause]:
    """Return causes with those of one name added up, without those that are 0."""
    totals: dict[str, Cause] = {}
    for name, flops, transcendentals in causes:
        before = totals.get(name, Cause(name, 0, 0))
        totals[name] = Cause(name, before.flops + flops, before.transcendentals + transcendentals)
    return [c for c in totals.values() if c.flops or c.transcendentals]
