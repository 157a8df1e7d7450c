"""From a jaxpr to the costs at its sites: liveness, nesting, loops and branches, each program once.

A program that runs many times (48 layers that call one function) is walked once for each set of its
results that is needed, then placed below each caller's scope, times its trips.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from jax.extend import source_info_util
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from refgrad.cost.constants import Constants, Known
from refgrad.cost.primitives import TABLE
from refgrad.cost.primitives.rule import Bodies, Body, Work, nbytes
from refgrad.cost.trips import integer, while_trips
from refgrad.cost.types import Cost, Site

NOWHERE = "(inside JAX)"  # the source of what no line of the user's code has called
REMAT = "rematted_computation"  # the scope that JAX puts around what `jax.checkpoint` computes again


class UnknownCost(ValueError):
    """A primitive has no rule in the table of costs."""


class Walked(NamedTuple):
    """One program's costs, scopes and multipliers relative to it, and which arguments it needs."""

    sites: dict[Site, Cost]
    notes: tuple[str, ...]
    needed: tuple[bool, ...]


class Walker:
    """Walks jaxprs; remembers each by identity. `unknown`: "raise" or "count"."""

    def __init__(self, unknown: str) -> None:
        self.unknown = unknown
        self._walked: dict[tuple[int, tuple[bool, ...], tuple[Known | None, ...]], tuple[Jaxpr, Walked]] = {}
        self._callers = [NOWHERE]

    def walk(
        self, jaxpr: Jaxpr | ClosedJaxpr, needed: tuple[bool, ...], known: tuple[Known | None, ...] = ()
    ) -> Walked:
        """The costs of the equations that the needed results depend on, or that have effects.

        `known`: what is known of the arguments, () where that is nothing.
        """
        closed = jaxpr if isinstance(jaxpr, ClosedJaxpr) else ClosedJaxpr(jaxpr, [])
        key = (id(closed.jaxpr), needed, known if any(known) else ())
        if key not in self._walked:  # the jaxpr is kept beside its costs, so that its id stays its own
            constants = Constants(closed.jaxpr, known or [None] * len(closed.jaxpr.invars), closed.consts)
            self._walked[key] = (closed.jaxpr, self._equations(closed.jaxpr, needed, constants))
        return self._walked[key][1]

    def _equations(self, jaxpr: Jaxpr, needed: tuple[bool, ...], constants: Constants) -> Walked:
        live = {v for v, need in zip(jaxpr.outvars, needed, strict=True) if need and not isinstance(v, Literal)}
        parts: list[tuple[dict[Site, Cost], tuple[str, ...]]] = []
        for eqn in reversed(jaxpr.eqns):
            results = tuple(v in live for v in eqn.outvars)
            if not any(results) and not _has_effects(eqn):
                continue
            sites, notes, operands = self._equation(eqn, results, constants)
            live.update(v for v, need in zip(eqn.invars, operands, strict=True) if need and not isinstance(v, Literal))
            parts.append((sites, notes))
        merged: dict[Site, Cost] = {}
        for sites, _ in reversed(parts):
            _merge(merged, sites.items())
        said = dict.fromkeys(note for _, notes in reversed(parts) for note in notes)
        return Walked(merged, tuple(said), tuple(v in live for v in jaxpr.invars))

    def _equation(self, eqn: JaxprEqn, results: tuple[bool, ...], constants: Constants) -> Walked:
        rule = TABLE.get(eqn.primitive.name)
        work = rule(eqn) if rule else None
        if work is None:
            return self._unknown(eqn)
        if isinstance(work, Bodies):
            return self._bodies(eqn, work, results, constants)
        site, notes = self._site(eqn), ()
        if work.per_trip:
            site = site._replace(loop=self._source(eqn))
            notes = (_one_trip(eqn, site.loop),)
        return Walked({site: _cost(eqn, work)}, notes, (True,) * len(eqn.invars))

    def _site(self, eqn: JaxprEqn) -> Site:
        scope, recomputed = scope_of(eqn)
        return Site(scope, eqn.primitive.name, source_of(eqn), recomputed=recomputed)

    def _source(self, eqn: JaxprEqn) -> str:
        """Where the equation was made, or where the program that holds it was called from."""
        return source_of(eqn) or next(filter(None, reversed(self._callers)))

    def _unknown(self, eqn: JaxprEqn) -> Walked:
        name, where = eqn.primitive.name, self._source(eqn)
        if self.unknown == "raise":
            raise UnknownCost(
                f"no cost is known for the primitive {name!r} at {where}: pass unknown='count' to count the "
                f"rest and list it in .unknown, or add a rule to refgrad.cost.primitives"
            )
        site = self._site(eqn)._replace(unknown=True)
        note = f"{name} at {where} has no known cost: its bytes are counted, its FLOPs read 0"
        return Walked({site: _cost(eqn, Work())}, (note,), (True,) * len(eqn.invars))

    def _bodies(self, eqn: JaxprEqn, bodies: Bodies, results: tuple[bool, ...], constants: Constants) -> Walked:
        self._callers.append(source_of(eqn))
        walked = [self._body(eqn, body, results, constants) for body in bodies.all]
        self._callers.pop()
        operands = [i in bodies.also_needed for i in range(len(eqn.invars))]
        for part in walked:
            operands = [a or b for a, b in zip(operands, part.needed, strict=True)]
        notes = [note for part in walked for note in part.notes]
        if bodies.dearest and len(walked) > 1:
            dearest = max(walked, key=_price)
            if any(part.sites != dearest.sites for part in walked):
                chosen = walked.index(dearest)
                notes.append(f"cond at {self._source(eqn)}: counts branch {chosen} of {len(walked)}, the dearest")
            walked = [dearest]
        sites: dict[Site, Cost] = {}
        for part in walked:
            _merge(sites, part.sites.items())
        if bodies.work is not None:
            _merge(sites, [(self._site(eqn), _cost(eqn, bodies.work))])
        return Walked(sites, tuple(dict.fromkeys(notes)), tuple(operands))

    def _body(self, eqn: JaxprEqn, body: Body, results: tuple[bool, ...], constants: Constants) -> Walked:
        """One body at its place below the equation, times its trips and devices."""
        known = tuple(None if i is None else _whole(constants.of(eqn.invars[i])) for i in body.fixed_inputs())
        inner = self._live(body, results, known)
        operands = [False] * len(eqn.invars)
        for i, need in zip(body.inputs, inner.needed, strict=True):
            if i is not None and need:
                operands[i] = True
        trips, loop, notes = body.trips, "", inner.notes
        if trips is None:
            trips = while_trips(eqn, body, constants.of)
        if trips is None:
            trips, loop = 1, self._source(eqn)
            notes = (*notes, _one_trip(eqn, loop))
        sites: dict[Site, Cost] = {}
        if trips * body.repeats:
            scope, recomputed = scope_of(eqn)
            for site, cost in inner.sites.items():
                placed = site._replace(
                    scope="/".join(filter(None, (scope, site.scope))),
                    source=site.source or source_of(eqn),
                    trips=trips * site.trips,
                    devices=body.devices * site.devices,
                    recomputed=recomputed or site.recomputed,
                    loop=" > ".join(filter(None, (loop, site.loop))),
                )
                cost = cost if body.moves else cost._replace(read=0, written=0)
                _merge(sites, [(placed, cost.times(trips * body.devices * body.repeats))])
        return Walked(sites, notes, tuple(operands))

    def _live(self, body: Body, results: tuple[bool, ...], known: tuple[Known | None, ...]) -> Walked:
        """The body walked for the results that are needed, and for those that its next trip needs of the carry."""
        wanted = [i is None or results[i] for i in body.outputs]
        while True:
            inner = self.walk(body.jaxpr, tuple(wanted), known)
            again = [w or (k < body.carry and inner.needed[body.carry_start + k]) for k, w in enumerate(wanted)]
            if again == wanted:
                return inner
            wanted = again


def source_of(eqn: JaxprEqn) -> str:
    """file:line of the user's code that made the equation."""
    text = source_info_util.summarize(eqn.source_info)
    match = re.match(r"(.*?:\d+)(?::\d+)?(?: \(.*\))?$", text)
    return match.group(1) if match else text


def _one_trip(eqn: JaxprEqn, where: str) -> str:
    return f"{eqn.primitive.name} at {where}: trip count unknown, ONE trip is counted"


def scope_of(eqn: JaxprEqn) -> tuple[str, bool]:
    """The `named_scope` path without the transformations' marks, and whether it is rematerialised.

    A transformation's mark inside the path can start it again from its root, as in
    transpose(jvp(block))/jvp(block): the repeated part is dropped.
    """
    path: list[str] = []
    piece: list[str] = []
    for entry in (*eqn.source_info.name_stack.stack, None):
        if entry is not None and type(entry).__name__ == "Scope":
            piece.append(entry.name)
            continue
        path = piece if piece[: len(path)] == path else path + piece
        piece = []
    return "/".join(name for name in path if name != REMAT), REMAT in path


def _cost(eqn: JaxprEqn, work: Work) -> Cost:
    read = sum(nbytes(v) for v in eqn.invars) if work.read is None else work.read
    written = sum(nbytes(v) for v in eqn.outvars) if work.written is None else work.written
    return Cost(work.matmul, work.elementwise, work.transcendental, read, written)


def _whole(known: Known | None) -> Known | None:
    """What is known, where it is an integer: nothing else changes a cost."""
    return known if integer(known) is not None else None


def _price(walked: Walked) -> tuple[int, int]:
    costs = walked.sites.values()
    return (
        sum(c.matmul + c.elementwise + c.transcendental for c in costs),
        sum(c.read + c.written for c in costs),
    )


def _merge(into: dict[Site, Cost], sites: Iterable[tuple[Site, Cost]]) -> None:
    for site, cost in sites:
        into[site] = into[site].plus(cost) if site in into else cost


def _has_effects(eqn: JaxprEqn) -> bool:
    """Whether it must run though nobody needs its results; naming a mesh axis is no such effect."""
    return any(type(effect).__name__ != "NamedAxisEffect" for effect in eqn.effects)
