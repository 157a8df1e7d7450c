"""Walk from a program to the costs at its sites: the equations that run, their scopes and trips."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from refgrad.cost.constants import Constants, Known
from refgrad.cost.primitives import price
from refgrad.cost.primitives.rule import Programs, Work
from refgrad.cost.trips import trips_of
from refgrad.cost.types import Cost, Site
from refgrad.cost.variants import Variant, known_of, variants
from refgrad.jaxpr.analysis import Backward
from refgrad.jaxpr.avals import nbytes
from refgrad.jaxpr.calls import Bodies, Body, Form
from refgrad.jaxpr.programs import is_backward, scope_of, source_of

NOWHERE = "(inside JAX)"  # the source of what no line of the user's code has called


class UnknownCost(ValueError):
    """A primitive has no rule in the table of costs; `unknown="zero"` counts it as 0.

    Example:
      >>> import jax
      >>> from refgrad import cost
      >>> def call(x):
      ...     return jax.pure_callback(abs, x, x)
      >>> try:
      ...     cost.count(call, jax.ShapeDtypeStruct((2,), "float32"))
      ... except cost.UnknownCost:
      ...     print("no rule")
      no rule
    """


class Costs(NamedTuple):
    """The costs of a program, scopes and multipliers relative to it, and notes about them."""

    sites: dict[Site, Cost]
    notes: tuple[str, ...] = ()


class Walker(Backward[bool, Costs]):
    """Walk that prices equations with effects or needed results. `unknown`: "raise" or "count"."""

    nothing, everything = False, True

    def __init__(
        self, unknown: str, place: Mapping[str, Sequence[int]] | None = None, callers: Sequence[str] = (NOWHERE,)
    ) -> None:
        super().__init__()
        self.unknown = unknown
        self._place = place  # the point of the grid, inside a kernel
        self._callers = list(callers)

    def join(self, one: bool, other: bool) -> bool:
        """A variable is needed where one reader needs it."""
        return one or other

    def runs(self, eqn: JaxprEqn, results: tuple[bool, ...]) -> bool:
        """Return True for what some result depends on, and for what has effects."""
        return any(results) or _has_effects(eqn)

    def facts(self, program: ClosedJaxpr | Jaxpr, known: tuple[Known | None, ...]) -> Constants:
        """Return the constants of a program."""
        return Constants(program, known, self._place)

    def known(self, eqn: JaxprEqn, body: Body, facts: Constants) -> tuple[Known | None, ...]:
        """Return the integers and flags that are known of a body's arguments: nothing else changes a cost."""
        known = tuple(_whole(one) for one in known_of(eqn, body, facts))
        return known if any(known) else ()

    def _settle(self, body: Body, results: tuple[bool, ...], known: tuple) -> tuple[Costs, tuple[bool, ...]]:
        """Walk a body; at a point of a grid by a walker of its own, which knows the point."""
        if not isinstance(body, Variant) or body.place is None:
            return super()._settle(body, results, known)
        there = Walker(self.unknown, body.place, self._callers)
        return Backward._settle(there, body, results, known)

    def gather(self, payloads: list[Costs]) -> Costs:
        """Return the costs of a program, those of one site added up."""
        sites: dict[Site, Cost] = {}
        for costs in payloads:
            _merge(sites, costs.sites.items())
        return Costs(sites, tuple(dict.fromkeys(note for costs in payloads for note in costs.notes)))

    def equation(self, eqn: JaxprEqn, results: tuple[bool, ...], facts: Constants) -> tuple[Costs, list[bool]]:
        """Return the cost of one equation and of the programs that it runs."""
        work, every = price(eqn), [True] * len(eqn.invars)
        if isinstance(work, Programs):
            return self._programs(eqn, work, results, facts)
        if work is None:
            return self._unknown(eqn, facts), every
        cost = _cost(eqn, work)
        site = _site(eqn, cost, facts)
        if not work.per_trip:
            notes = (f"{eqn.primitive.name} at {self._source(eqn)}: {work.about}",) if work.about else ()
            return Costs({site: cost}, notes), every
        site = site._replace(loop=self._source(eqn))
        return Costs({site: cost}, (_one_trip(eqn, site.loop),)), every

    def _source(self, eqn: JaxprEqn) -> str:
        """Return where the equation was made, or where the program that holds it was called from."""
        return source_of(eqn) or next(filter(None, reversed(self._callers)))

    def _unknown(self, eqn: JaxprEqn, facts: Constants) -> Costs:
        name, where = eqn.primitive.name, self._source(eqn)
        if self.unknown == "raise":
            raise UnknownCost(
                f"no cost is known for the primitive {name!r} at {where}: count the rest in Python, by "
                f"refgrad.cost.count(f, ..., unknown='count'), or add a rule to refgrad.cost.primitives"
            )
        note = f"{name} at {where} has no known cost: its bytes are counted, its FLOPs read 0"
        cost = _cost(eqn, Work())
        return Costs({_site(eqn, cost, facts)._replace(unknown=True): cost}, (note,))

    def _programs(
        self, eqn: JaxprEqn, programs: Programs, results: tuple[bool, ...], facts: Constants
    ) -> tuple[Costs, list[bool]]:
        bodies, untold = variants(eqn, programs.bodies, facts)
        self._callers.append(source_of(eqn))
        inner, operands = self.bodies(eqn, bodies, results, facts)
        self._callers.pop()
        placed = [self._placed(eqn, bodies, *pair, facts) for pair in zip(bodies.all, inner, strict=True)]
        notes = [note for costs in placed for note in costs.notes]
        notes += [f"{eqn.primitive.name} at {self._source(eqn)}: {untold}"] if untold else []
        if bodies.form is Form.BRANCHES and len(placed) > 1:
            costliest = max(placed, key=_price)
            if any(costs.sites != costliest.sites for costs in placed):
                chosen = placed.index(costliest)
                notes.append(f"cond at {self._source(eqn)}: counts branch {chosen} of {len(placed)}, the costliest")
            placed = [costliest]
        elif isinstance(bodies.all[-1], Variant):
            first = next(i for i, body in enumerate(bodies.all) if isinstance(body, Variant))
            placed = [*placed[:first], _together(placed[first:])]
        own = [] if programs.work is None else [_own(eqn, programs.work, facts)]
        return self.gather([*placed, *own])._replace(notes=tuple(dict.fromkeys(notes))), operands

    def _placed(self, eqn: JaxprEqn, bodies: Bodies, body: Body, inner: Costs, facts: Constants) -> Costs:
        """Return the costs of one body at its place below the equation, times its trips and devices."""
        trips, loop, notes = trips_of(eqn, bodies, body, facts), "", inner.notes
        if trips is None:
            trips, loop = 1, self._source(eqn)
            notes = (*notes, _one_trip(eqn, loop))
        sites: dict[Site, Cost] = {}
        if trips * body.repeats:
            (scope, recomputed), backward = scope_of(eqn), is_backward(eqn)
            for site, cost in inner.sites.items():
                placed = site._replace(
                    scope="/".join(filter(None, (scope, site.scope))),
                    source=site.source or source_of(eqn),
                    trips=trips * site.trips,
                    devices=body.devices * site.devices,
                    recomputed=recomputed or site.recomputed,
                    loop=" > ".join(filter(None, (loop, site.loop))),
                    operation=site.operation if not backward else site.operation._replace(backward=True),
                )
                cost = cost if body.moves else cost._replace(read=0, written=0)
                _merge(sites, [(placed, cost.times(trips * body.devices * body.repeats))])
        return Costs(sites, notes)


def _together(variants: list[Costs]) -> Costs:
    """Return the costs of a body from those of its variants: a site that several of them have runs in all of them."""
    trips: Counter[tuple[Site, int]] = Counter()
    totals: dict[tuple[Site, int], Cost] = {}
    for costs in variants:
        before: Counter[Site] = Counter()  # sites of this variant that differ in their trips alone
        for site, cost in costs.sites.items():
            once = site._replace(trips=1)
            key = once, before[once]
            before[once] += 1
            trips[key] += site.trips
            totals[key] = totals.get(key, Cost()).plus(cost)
    sites: dict[Site, Cost] = {}
    _merge(sites, ((key[0]._replace(trips=trips[key]), cost) for key, cost in totals.items()))
    return Costs(sites)


def _own(eqn: JaxprEqn, work: Work, facts: Constants) -> Costs:
    cost = _cost(eqn, work)
    return Costs({_site(eqn, cost, facts): cost})


def _site(eqn: JaxprEqn, cost: Cost, facts: Constants) -> Site:
    scope, recomputed = scope_of(eqn)
    operation = facts.parts.operation(eqn)._replace(each=cost)
    return Site(scope, eqn.primitive.name, source_of(eqn), recomputed=recomputed, operation=operation)


def _one_trip(eqn: JaxprEqn, where: str) -> str:
    return f"{eqn.primitive.name} at {where}: trip count unknown, ONE trip is counted"


def _cost(eqn: JaxprEqn, work: Work) -> Cost:
    read = sum(nbytes(v) for v in eqn.invars) if work.read is None else work.read
    written = sum(nbytes(v) for v in eqn.outvars) if work.written is None else work.written
    return Cost(work.matmul, work.elementwise, work.transcendental, read, written)


def _whole(known: Known | None) -> Known | None:
    """Return what is known where it is integers or flags."""
    if known is None:
        return None
    return known if isinstance(known.value, int) or known.entries is not None else None


def _price(costs: Costs) -> tuple[int, int]:
    found = costs.sites.values()
    return (sum(c.matmul + c.elementwise + c.transcendental for c in found), sum(c.read + c.written for c in found))


def _merge(into: dict[Site, Cost], sites: Iterable[tuple[Site, Cost]]) -> None:
    for site, cost in sites:
        into[site] = into[site].plus(cost) if site in into else cost


def _has_effects(eqn: JaxprEqn) -> bool:
    """Return True for an equation that must run though nobody needs its results; naming a mesh axis does not count."""
    return any(type(effect).__name__ != "NamedAxisEffect" for effect in eqn.effects)
