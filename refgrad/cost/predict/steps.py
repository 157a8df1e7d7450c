"""A program as one list of steps: calls inlined, dead equations dropped, loops as steps with programs of their own.

FLOPs are those of `count`: each step holds the cost that the walker gives its equation, so that the steps of a program
add up to its count, one device of `shard_map` taken.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from refgrad.cost.primitives import price
from refgrad.cost.primitives.rule import Programs
from refgrad.cost.trips import trips_of
from refgrad.cost.types import Cost
from refgrad.cost.variants import variants
from refgrad.cost.walk import Walker
from refgrad.jaxpr.analysis import Backward
from refgrad.jaxpr.avals import nbytes
from refgrad.jaxpr.calls import Bodies, Body, Form
from refgrad.jaxpr.programs import scope_of, source_of
from refgrad.jaxpr.versions import opened

_INLINED = (Form.CALL, Form.DEVICES)
_LOOPS = (Form.SCAN, Form.WHILE)


@dataclasses.dataclass(eq=False)
class Value:
    """One array of one device; a share of the whole where `shards` devices hold it together."""

    aval: Any
    whole_bytes: int
    shards: int = 1

    @property
    def bytes(self) -> int:
        """Bytes on one device."""
        return -(-self.whole_bytes // self.shards)


@dataclasses.dataclass(eq=False)
class TimedStep:
    """One equation, or one loop with its body."""

    primitive: str
    scope: str
    source: str
    reads: tuple[Value | None, ...]
    """None for a literal."""
    makes: tuple[Value, ...]
    cost: Cost
    eqn: JaxprEqn
    trips: int = 1
    bodies: tuple["Schedule", ...] = ()
    recomputed: bool = False
    axes: dict[str, int] = dataclasses.field(default_factory=dict)
    """Sizes of the mesh axes that exist here."""


@dataclasses.dataclass(eq=False)
class Schedule:
    """Arguments, steps in program order, results (None for a literal)."""

    arguments: tuple[Value, ...]
    steps: tuple[TimedStep, ...]
    results: tuple[Value | None, ...]

    def all_steps(self) -> Iterator[tuple[TimedStep, int]]:
        """Yield every step at any depth, with its number of runs."""
        for step in self.steps:
            yield step, 1
            for body in step.bodies:
                for inner, times in body.all_steps():
                    yield inner, times * step.trips


class _Part(NamedTuple):
    """An equation that runs, its cost where it runs no program that is followed, and what its programs hold."""

    eqn: JaxprEqn
    cost: Cost
    bodies: Bodies | None = None
    inner: tuple[tuple["_Part", ...], ...] = ()
    trips: int = 1
    chosen: int = 0


class _Parts(Backward[bool, tuple[_Part, ...]]):
    """The equations that run, as a tree."""

    nothing, everything = False, True

    def __init__(self, platform: str) -> None:
        super().__init__()
        self._walker, self._platform = Walker("raise"), platform
        self.notes: dict[str, None] = {}
        self.join = self._walker.join
        self.runs = self._walker.runs
        self.facts = self._walker.facts
        self.known = self._walker.known

    def gather(self, payloads: list[tuple[_Part, ...]]) -> tuple[_Part, ...]:
        return tuple(part for parts in payloads for part in parts)

    def equation(
        self, eqn: JaxprEqn, results: tuple[bool, ...], facts: Any
    ) -> tuple[tuple[_Part, ...], Sequence[bool]]:
        work = price(eqn)
        bodies = self._for_platform(eqn, work.bodies) if isinstance(work, Programs) else None
        if bodies is None or bodies.form not in (*_INLINED, *_LOOPS, Form.BRANCHES):
            costs, operands = self._walker.equation(eqn, results, facts)
            self.notes.update(dict.fromkeys(costs.notes))
            return (_Part(eqn, Cost.sum(costs.sites.values())),), operands
        if bodies.form is Form.BRANCHES:
            bodies, _ = variants(eqn, bodies, facts)
        inner, operands = self.bodies(eqn, bodies, results, facts)
        trips, chosen = 1, 0
        if bodies.form in _LOOPS:
            found = trips_of(eqn, bodies, bodies.all[-1], facts)
            if found is None:
                self.notes[f"{eqn.primitive.name} at {source_of(eqn)}: trip count unknown, ONE trip is taken"] = None
            trips = 1 if found is None else found
        elif bodies.form is Form.BRANCHES:
            chosen = max(range(len(inner)), key=lambda i: _work(inner[i]))
        return (_Part(eqn, Cost(), bodies, tuple(inner), trips, chosen),), operands

    def _for_platform(self, eqn: JaxprEqn, bodies: Bodies) -> Bodies:
        """Return the programs that run on the device's platform, where they depend on it."""
        platforms = eqn.params.get("branches_platforms")
        if platforms is None:
            return bodies
        chosen = next(i for i, names in enumerate(platforms) if names is None or self._platform in names)
        body = dataclasses.replace(bodies.all[0], jaxpr=eqn.params["branches"][chosen])
        return dataclasses.replace(bodies, all=(body,))


def _work(parts: tuple[_Part, ...]) -> tuple[int, int]:
    """FLOPs and bytes of the parts, by which the costliest branch is chosen."""
    flops = moved = 0
    for part in parts:
        below = [_work(inner) for inner in part.inner]
        flops += sum(part.cost[:3]) + part.trips * sum(f for f, _ in below)
        moved += sum(part.cost[3:]) + part.trips * sum(b for _, b in below)
    return flops, moved


def schedule_of(jaxpr: ClosedJaxpr, platform: str = "cpu") -> tuple[Schedule, tuple[str, ...]]:
    """Return the steps of a program on a platform, and notes. Raises UnknownCost as `count` does."""
    parts = _Parts(platform)
    inner = opened(jaxpr)
    tree, _ = parts.walk(jaxpr, (True,) * len(inner.outvars))
    return _Builder().build(jaxpr, tree, [_value(v) for v in inner.invars]), tuple(parts.notes)


def _value(v: Any, shards: int = 1) -> Value:
    return Value(v.aval, nbytes(v), shards)


class _Builder:
    """Interpreter that gives every array of a program a `Value`, through calls and into loops."""

    def __init__(self) -> None:
        self.steps: list[TimedStep] = []
        self.path: tuple[str, ...] = ()
        self.source = ""
        self.recomputed = False
        self.axes: dict[str, int] = {}

    def build(self, program: ClosedJaxpr | Jaxpr, tree: tuple[_Part, ...], arguments: Sequence[Value]) -> Schedule:
        outer, self.steps = self.steps, []
        results = self.inline(program, tree, arguments)
        steps, self.steps = tuple(self.steps), outer
        return Schedule(tuple(arguments), steps, tuple(results))

    def inline(
        self, program: ClosedJaxpr | Jaxpr, tree: tuple[_Part, ...], arguments: Sequence[Value | None]
    ) -> list[Value | None]:
        jaxpr = opened(program)
        env: dict[Any, Value | None] = dict(zip(jaxpr.invars, arguments, strict=True))
        env.update((v, _value(v)) for v in jaxpr.constvars)
        for part in tree:
            self._part(part, env)
        return [_read(env, v) for v in jaxpr.outvars]

    def _part(self, part: _Part, env: dict[Any, Value | None]) -> None:
        eqn, bodies = part.eqn, part.bodies
        reads = tuple(_read(env, v) for v in eqn.invars)
        if bodies is not None and bodies.form not in _LOOPS:
            body = bodies.all[part.chosen]
            results = self._within(eqn, bodies, lambda: self._body(body, bodies, part.inner[part.chosen], reads))
            for i, result in zip(body.outputs, results, strict=True):
                if i is not None:
                    env[eqn.outvars[i]] = self._out(eqn.outvars[i], result, bodies)
            return
        makes = tuple(_value(v, _shards(reads, v)) for v in eqn.outvars)
        shards = max((made.shards for made in makes), default=1)
        env.update(zip(eqn.outvars, makes, strict=True))
        scope, recomputed = scope_of(eqn)
        step = TimedStep(
            eqn.primitive.name,
            "/".join(filter(None, (*self.path, scope))),
            source_of(eqn) or self.source,
            reads,
            makes,
            Cost(*(n // shards for n in part.cost)),
            eqn,
            part.trips,
            recomputed=recomputed or self.recomputed,
            axes=dict(self.axes),
        )
        if bodies is not None:
            step.bodies = self._within(eqn, bodies, lambda: self._loops(bodies, part.inner))
        self.steps.append(step)

    def _loops(self, bodies: Bodies, trees: tuple[tuple[_Part, ...], ...]) -> tuple[Schedule, ...]:
        return tuple(
            self.build(body.jaxpr, tree, [_value(v) for v in opened(body.jaxpr).invars])
            for body, tree in zip(bodies.all, trees, strict=True)
        )

    def _body(
        self, body: Body, bodies: Bodies, tree: tuple[_Part, ...], reads: tuple[Value | None, ...]
    ) -> list[Value | None]:
        given = [None if i is None else reads[i] for i in body.inputs]
        if bodies.form is Form.DEVICES:  # inside, a device's share has a shape of its own
            self.axes = {**self.axes, **(bodies.mesh or {})}
            for value, v in zip(given, opened(body.jaxpr).invars, strict=True):
                if value is not None:
                    value.shards = max(value.shards, value.whole_bytes // max(nbytes(v), 1))
        return self.inline(body.jaxpr, tree, given)

    def _out(self, v: Any, result: Value | None, bodies: Bodies) -> Value | None:
        """A result as the caller sees it: of `shard_map`, the whole array, shared between the devices."""
        if result is not None and bodies.form is Form.DEVICES:
            result.shards = max(nbytes(v) // max(result.bytes, 1), 1)
            result.whole_bytes, result.aval = nbytes(v), v.aval
        return result

    def _within(self, eqn: JaxprEqn, bodies: Bodies, run: Callable[[], Any]) -> Any:
        """Run with the scope and source of an equation around what it runs."""
        before = self.path, self.source, self.recomputed, self.axes
        scope, recomputed = scope_of(eqn)
        self.path, self.source = (*self.path, scope), source_of(eqn) or self.source
        self.recomputed = recomputed or self.recomputed
        try:
            return run()
        finally:
            self.path, self.source, self.recomputed, self.axes = before


def _read(env: dict[Any, Value | None], v: Any) -> Value | None:
    return None if isinstance(v, Literal) else env.get(v)


def _shards(reads: tuple[Value | None, ...], v: Any) -> int:
    """Outside `shard_map`, an array made from divided ones of its own size is divided as they are."""
    size = nbytes(v)
    shape = getattr(v.aval, "shape", ())
    alike = [r.shards for r in reads if r is not None and getattr(r.aval, "shape", None) == shape and size]
    return max(alike, default=1)
