"""The same scopes in the jaxpr's count and in HLO: cost by named scope on both sides, and where they part.

HLO's `op_name` is a path in which JAX's own words stand between the user's scopes: `jit(f)`, the marks of the
transformations (`transpose(jvp(block))`), loops, branches, calls. Without them it is the scope of the jaxpr's count;
a scope that the user calls "while" or "body" is taken for JAX's.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from refgrad.cost.hlo import HloCost, HloRow
from refgrad.cost.types import Count, Site

_JAX = """
    body body_jaxpr call checkpoint closed_call cond cond_jaxpr core_call custom_jvp_call custom_vjp_call eval_jaxpr
    pjit remat2 rematted_computation shard_map while
"""
_BRANCH = re.compile(r"branch_\d+_fun")
_MARK = re.compile(r"(\w+)\((.*)\)$")
_CALLS = ("jit", "pjit")


class Scoped(NamedTuple):
    """One scope: FLOPs and transcendentals as the jaxpr's count has them, and as HLO has them."""

    scope: str
    flops: int
    transcendentals: int
    hlo_flops: int
    hlo_transcendentals: int

    @property
    def agrees(self) -> bool:
        """True if both sides have the same cost here."""
        return (self.flops, self.transcendentals) == (self.hlo_flops, self.hlo_transcendentals)


@cache
def scope_of(op_name: str) -> str:
    """The user's scopes in an `op_name`, without the primitive at its end."""
    path: list[str] = []
    piece: list[str] = []
    for part in _split(op_name)[:-1]:
        inner, marked = _unwrap(part)
        if marked:  # a transformation's mark can start the path again from its root
            path, piece = _joined(path, piece), []
        if inner and inner not in _JAX.split() and not _BRANCH.fullmatch(inner):
            piece += _split(inner)
    return "/".join(_joined(path, piece))


def by_scope(count: Count, walked: HloCost) -> list[Scoped]:
    """Both sides by scope, in the order of the count, then what only HLO has.

    Loops count with their trips, `shard_map` for one device, and a scan's own counter not at all, so that both sides
    speak of the same program: where they differ, something was folded, expanded or mispriced.
    """
    sides = _sides(count, walked, lambda site: site.scope, lambda row: scope_of(row.scope))
    return [Scoped(scope, *counted, *hlo) for scope, (counted, hlo) in sides.items()]


def first_divergence(count: Count, walked: HloCost) -> str:
    """The first HLO instruction whose scope and primitive cost another sum than the count has there; "" if none."""
    apart = {row.scope for row in by_scope(count, walked) if not row.agrees}
    sides = _sides(
        count, walked, lambda site: (site.scope, site.primitive), lambda row: (scope_of(row.scope), row.primitive)
    )
    differ = {key: side for key, side in sides.items() if key[0] in apart and side[0] != side[1]}
    for row in walked.program_rows:
        side = differ.get((scope_of(row.scope), row.primitive))
        if side is not None:
            return f"{row.instruction.name} ({row.scope}): {_figures(*side)}"
    return next((f"{scope}/{name}, not in the HLO: {_figures(*side)}" for (scope, name), side in differ.items()), "")


Figures = tuple[int, int]


def _sides(
    count: Count, walked: HloCost, of_site: Callable[[Site], Any], of_row: Callable[[HloRow], Any]
) -> dict[Any, tuple[Figures, Figures]]:
    """key → ((flops, transcendentals) counted, the same in HLO)."""
    counted: dict[Any, Figures] = {}
    for site, cost in count.per_device.sites.items():
        flops, transcendentals = counted.get(of_site(site), (0, 0))
        flops += cost.matmul + cost.elementwise
        counted[of_site(site)] = flops, transcendentals + cost.transcendental
    hlo: dict[Any, Figures] = {}
    for row in walked.program_rows:
        key = of_row(row)
        flops, transcendentals = hlo.get(key, (0, 0))
        hlo[key] = flops + row.flops * row.times, transcendentals + row.transcendentals * row.times
    return {key: (counted.get(key, (0, 0)), hlo.get(key, (0, 0))) for key in dict.fromkeys((*counted, *hlo))}


def _figures(counted: Figures, hlo: Figures) -> str:
    return f"flops {counted[0]:,} counted, {hlo[0]:,} in HLO; transcendentals {counted[1]:,} counted, {hlo[1]:,} in HLO"


def _joined(path: list[str], piece: list[str]) -> list[str]:
    return piece if piece[: len(path)] == path else path + piece


def _unwrap(part: str) -> tuple[str, bool]:
    """(the scopes inside the marks of a part, whether it had any): transpose(jvp(block)) → block."""
    marked = False
    while (found := _MARK.match(part)) is not None:
        if found.group(1) in _CALLS:
            return "", marked
        part, marked = found.group(2), True
    return part, marked


def _split(path: str) -> list[str]:
    """Parts of a path; a slash inside parentheses does not separate."""
    parts, depth, start = [], 0, 0
    for i, letter in enumerate(path):
        depth += (letter == "(") - (letter == ")")
        if letter == "/" and depth == 0:
            parts.append(path[start:i])
            start = i + 1
    return [*parts, path[start:]]
