"""The equations of a program that run: live ones at any depth, with how often, and why one may be folded."""

from typing import NamedTuple

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from refgrad.cost.constants import EQUALS, Constants, Known
from refgrad.cost.primitives import price
from refgrad.cost.primitives.rule import Programs
from refgrad.cost.trips import trips_of
from refgrad.cost.variants import known_of, variants
from refgrad.cost.walk import Walker
from refgrad.jaxpr.analysis import Backward
from refgrad.jaxpr.calls import Bodies, Body, Form, is_kernel
from refgrad.jaxpr.versions import opened

DEAD = "feeds only what is folded"


class Equation(NamedTuple):
    """A live equation, why it may be folded ("" if not), how often it runs, and which of its results are needed."""

    eqn: JaxprEqn
    reason: str
    times: int
    wanted: tuple[bool, ...]

    def repeated(self, n: int) -> "Equation":
        """Return the same in a program that runs n times."""
        return self._replace(times=n * self.times)


class Need(NamedTuple):
    """Need of a variable: in the program as it stands, and with everything folded that may be."""

    plain: bool
    folded: bool


class Choice(NamedTuple):
    """A live equation with branches, or a `while`, and what is known of its runs."""

    eqn: JaxprEqn
    form: Form
    runs: tuple[int, ...]
    """The total runs of each branch, or of the body of the `while`; () where they are not known."""
    each: frozenset[tuple[int, ...]]
    """The same for one run of the equation: several where trips or points of what holds it differ."""

    def repeated(self, n: int) -> "Choice":
        """Return the same in a program that runs n times."""
        return self._replace(runs=tuple(n * runs for runs in self.runs))

    def plus(self, other: "Choice") -> "Choice":
        """Return the runs of the same equation in two variants of the program that holds it."""
        known = self.runs and other.runs
        runs = tuple(map(int.__add__, self.runs, other.runs)) if known else ()
        return self._replace(runs=runs, each=self.each | other.each)


Found = list[Equation | Choice]


def equations(program: ClosedJaxpr) -> tuple[list[Equation], list[Choice]]:
    """Return every live equation of a program, at any depth, that runs no other program, the last first.

    Loops of unknown length are taken once. The second list holds those that choose what runs, in the same order.
    """
    found = _Live().walk(program, (Need(True, True),) * len(opened(program).outvars))[0]
    return [x for x in found if isinstance(x, Equation)], [x for x in found if isinstance(x, Choice)]


class _Live(Backward[Need, Found]):
    nothing, everything = Need(False, False), Need(True, True)

    def join(self, one: Need, other: Need) -> Need:
        return Need(one.plain or other.plain, one.folded or other.folded)

    def runs(self, eqn: JaxprEqn, results: tuple[Need, ...]) -> bool:
        return bool(eqn.effects) or any(need.plain for need in results)

    def facts(self, program: ClosedJaxpr | Jaxpr, known: tuple[Known | None, ...]) -> Constants:
        return Constants(program, known)

    def known(self, eqn: JaxprEqn, body: Body, facts: Constants) -> tuple[Known | None, ...]:
        return known_of(eqn, body, facts)

    def gather(self, payloads: list[Found]) -> Found:
        return [equation for found in reversed(payloads) for equation in found]

    def equation(self, eqn: JaxprEqn, results: tuple[Need, ...], facts: Constants) -> tuple[Found, list[Need]]:
        programs = price(eqn)
        if isinstance(programs, Programs) and not is_kernel(eqn):
            return self._programs(eqn, programs.bodies, results, facts)
        folded, reason = bool(eqn.effects) or any(need.folded for need in results), facts.reasons[eqn]
        found = Equation(eqn, reason or ("" if folded else DEAD), 1, tuple(need.plain for need in results))
        return [found], [Need(True, folded and kept) for kept in _keeps(eqn, facts)]

    def _programs(
        self, eqn: JaxprEqn, bodies: Bodies, results: tuple[Need, ...], facts: Constants
    ) -> tuple[Found, list[Need]]:
        every = bodies.all
        bodies, _ = variants(eqn, bodies, facts)
        inner, operands = self.bodies(eqn, bodies, results, facts)
        pairs = list(zip(bodies.all, inner, strict=True))
        found: Found = []
        if bodies.form is Form.BRANCHES:
            if len(every) > 1:
                known = len(bodies.all) == 1
                found.append(_choice(eqn, bodies, tuple(int(body is bodies.all[0]) for body in every) if known else ()))
            pairs = [pairs[_costliest(bodies, results)]]
        elif bodies.form is Form.WHILE:
            tests = trips_of(eqn, bodies, bodies.all[0], facts)
            found.append(_choice(eqn, bodies, () if tests is None else (tests - 1,)))
        for body, equations in pairs:
            trips = trips_of(eqn, bodies, body, facts)
            times = 1 if trips is None else trips
            found += [x.repeated(times) for x in equations]
        return (_together(found) if len(bodies.all) > 1 else found), operands


def _together(found: Found) -> Found:
    """Add up what one equation chooses in the variants of the program that holds it."""
    choices: dict[int, Choice] = {}
    for one in found:
        if isinstance(one, Choice):
            key = id(one.eqn)
            choices[key] = choices[key].plus(one) if key in choices else one
    return [*(x for x in found if isinstance(x, Equation)), *choices.values()]


def _choice(eqn: JaxprEqn, bodies: Bodies, runs: tuple[int, ...]) -> Choice:
    return Choice(eqn, bodies.form, runs, frozenset([runs]))


def _keeps(eqn: JaxprEqn, facts: Constants) -> list[bool]:
    """Return which operands are still needed once the equation is folded."""
    reason = facts.reasons[eqn]
    if reason == "constant":
        return [False] * len(eqn.invars)
    if reason == EQUALS:
        return [i > 0 for i in range(len(eqn.invars))]
    which = facts.of(eqn.invars[0]) if eqn.invars else None
    if reason == "select by a constant" and which is not None:
        return [i == 1 + int(which.value) for i in range(len(eqn.invars))]
    return [True] * len(eqn.invars)


def _costliest(bodies: Bodies, results: tuple[Need, ...]) -> int:
    """Return which branch the count takes: the one with the most FLOPs and transcendentals in all."""
    needed = [tuple(i is None or results[i].plain for i in body.outputs) for body in bodies.all]
    walker = Walker("count")
    branches = [walker.walk(body.jaxpr, need)[0].sites for body, need in zip(bodies.all, needed, strict=True)]
    totals = [sum(c.matmul + c.elementwise + c.transcendental for c in sites.values()) for sites in branches]
    return totals.index(max(totals))
