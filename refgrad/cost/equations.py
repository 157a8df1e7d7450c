"""The equations of a program that run: live ones at any depth, with how often, and why one may be folded."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from refgrad.cost.constants import EQUALS, Constants, Known
from refgrad.cost.primitives import TABLE
from refgrad.cost.primitives.rule import Bodies, Body
from refgrad.cost.trips import while_trips
from refgrad.cost.walk import Walker

DEAD = "feeds only what is folded"


class Equation(NamedTuple):
    """A live equation, why it may be folded ("" if not), how often it runs, and which of its results are needed."""

    eqn: JaxprEqn
    reason: str
    times: int
    wanted: tuple[bool, ...]


def equations(jaxpr: ClosedJaxpr) -> list[Equation]:
    """Every live equation of a program at any depth that runs no other program; loops of unknown length taken once."""
    needed = tuple((True, True) for _ in jaxpr.jaxpr.outvars)
    return list(_Visit(jaxpr.jaxpr, [None] * len(jaxpr.jaxpr.invars), jaxpr.consts, 1).backward(needed)[0])


def is_kernel(eqn: JaxprEqn) -> bool:
    """Whether it runs a kernel, whose equations are not the lowered program's: a library call, or interpreted."""
    return eqn.primitive.name == "pallas_call"


class _Visit:
    """One program: forward for the constants, then backward for what is needed, without and with folding."""

    def __init__(self, jaxpr: Jaxpr, arguments: list[Known | None], consts: list[Any], times: int):
        self.jaxpr, self.times = jaxpr, times
        self.constants = Constants(jaxpr, arguments, consts)

    def backward(self, needed: tuple[tuple[bool, bool], ...]) -> tuple[list[Equation], list[tuple[bool, bool]]]:
        """(equations, needs of the arguments); a need is a pair: without folding, and with everything folded."""
        live: dict[Any, tuple[bool, bool]] = {}
        _need(live, zip(self.jaxpr.outvars, needed, strict=True))
        found: list[Equation] = []
        for eqn, reason in zip(reversed(self.jaxpr.eqns), reversed(self.constants.reasons), strict=True):
            wanted = [live.get(v, (False, False)) for v in eqn.outvars]
            effects = bool(eqn.effects)
            plain, folded = (effects or any(w[k] for w in wanted) for k in (0, 1))
            if not plain:
                continue
            rule = TABLE.get(eqn.primitive.name)
            bodies = rule(eqn) if rule is not None else None
            if isinstance(bodies, Bodies) and not is_kernel(eqn):
                _need(live, zip(eqn.invars, self._bodies(eqn, bodies, wanted, found), strict=True))
                continue
            why = reason or ("" if folded else DEAD)
            found.append(Equation(eqn, why, self.times, tuple(plain for plain, _ in wanted)))
            _need(live, ((v, (True, folded and k)) for v, k in zip(eqn.invars, self._keeps(eqn, reason), strict=True)))
        return found, [live.get(v, (False, False)) for v in self.jaxpr.invars]

    def _keeps(self, eqn: JaxprEqn, reason: str) -> list[bool]:
        """Which operands are still needed once the equation is folded."""
        if reason == "constant":
            return [False] * len(eqn.invars)
        if reason == EQUALS:
            return [i > 0 for i in range(len(eqn.invars))]
        which = self.constants.of(eqn.invars[0])
        if reason == "select by a constant" and which is not None:
            return [i == 1 + int(which.value) for i in range(len(eqn.invars))]
        return [True] * len(eqn.invars)

    def _bodies(self, eqn: JaxprEqn, bodies: Bodies, wanted: list[tuple[bool, bool]], found: list[Equation]):
        operands = [(k, k) for k in (i in bodies.also_needed for i in range(len(eqn.invars)))]
        taken = _dearest(bodies, wanted) if bodies.dearest else None
        for k, body in enumerate(bodies.all):
            more, needs = self._body(eqn, body, wanted)
            if taken in (None, k):
                found.extend(more)
            for i, need in zip(body.inputs, needs, strict=True):
                if i is not None:
                    operands[i] = (operands[i][0] or need[0], operands[i][1] or need[1])
        return operands

    def _body(self, eqn: JaxprEqn, body: Body, wanted: list[tuple[bool, bool]]):
        closed = body.jaxpr if isinstance(body.jaxpr, ClosedJaxpr) else ClosedJaxpr(body.jaxpr, [])
        arguments = [None if i is None else self.constants.of(eqn.invars[i]) for i in body.fixed_inputs()]
        trips = while_trips(eqn, body, self.constants.of) if body.trips is None else body.trips
        times = self.times * (1 if trips is None else trips)
        visit = _Visit(closed.jaxpr, arguments, closed.consts, times)
        needs = [(True, True) if i is None else wanted[i] for i in body.outputs]
        while True:
            more, inner = visit.backward(tuple(needs))
            carried = [inner[body.carry_start + k] if k < body.carry else (False, False) for k in range(len(needs))]
            again = [(a[0] or b[0], a[1] or b[1]) for a, b in zip(needs, carried, strict=True)]
            if again == needs:
                return more, inner
            needs = again


def _dearest(bodies: Bodies, wanted: list[tuple[bool, bool]]) -> int:
    """Which branch the count takes: the one with the most FLOPs and transcendentals in all."""
    needed = [tuple(i is None or wanted[i][0] for i in body.outputs) for body in bodies.all]
    walker = Walker("count")
    sites = [walker.walk(body.jaxpr, need).sites for body, need in zip(bodies.all, needed, strict=True)]
    totals = [sum(c.matmul + c.elementwise + c.transcendental for c in branch.values()) for branch in sites]
    return totals.index(max(totals))


def _need(live: dict[Any, tuple[bool, bool]], needs: Iterable[tuple[Any, tuple[bool, bool]]]) -> None:
    for v, need in needs:
        if not isinstance(v, Literal):
            before = live.get(v, (False, False))
            live[v] = (before[0] or need[0], before[1] or need[1])
