"""Forward and backward analyses of programs, at any depth, from a function per equation.

A `Forward` analysis gives each variable a value made of the values upstream of it. A `Backward` analysis finds which
variables are needed for some results, and gathers something from the equations that make them. Both descend through
the table of `calls`, and go around a loop until its carry no longer changes.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from refgrad.jaxpr.calls import Bodies, Body, Form, bodies_of
from refgrad.jaxpr.versions import opened

V = TypeVar("V")
N = TypeVar("N")
P = TypeVar("P")
Program = ClosedJaxpr | Jaxpr


class Forward(Generic[V]):
    """One value for each variable. Subclasses say what a single equation makes of the values of its operands."""

    unknown: V  # of literals and constants
    # the structured equations to descend into
    follows: ClassVar[frozenset[Form]] = frozenset(Form) - {Form.SOLVE, Form.OPAQUE}

    def join(self, one: V, other: V) -> V:
        """Return the value of what may be either of two, or is made of both."""
        raise NotImplementedError

    def equation(self, eqn: JaxprEqn, entering: list[V]) -> Sequence[V]:
        """Return the values of the results of an equation that is not followed."""
        raise NotImplementedError

    def under(self, condition: V, result: V) -> V:
        """Return the value of a result that exists only under a condition: of a branch, or of a loop that goes on."""
        return self.join(condition, result)

    def repeated(self, body: Body, entering: list[V]) -> list[V]:
        """Return the values that enter a loop of a known number of trips, made of those at its first trip."""
        del body
        return entering

    def carried(self, entering: V, result: V) -> V:
        """Return the value of a carry after a scan, from that before any trip and that which a trip makes of it."""
        return self.join(entering, result)

    def within(self, bodies: Bodies) -> "Forward[V]":
        """Return the analysis of the programs inside an equation."""
        del bodies
        return self

    def run(self, program: Program, entering: Sequence[V]) -> list[V]:
        """Return the value of each result, from the value of each argument."""
        env = self.flow(program, entering)
        return [self.read(env, v) for v in opened(program).outvars]

    def flow(self, program: Program, entering: Sequence[V]) -> dict[Any, V]:
        """Return the value of each variable, from the value of each argument."""
        jaxpr = opened(program)
        env = dict(zip(jaxpr.invars, entering, strict=True))
        for eqn in jaxpr.eqns:
            incoming = [self.read(env, v) for v in eqn.invars]
            env.update(zip(eqn.outvars, self.through(eqn, incoming), strict=True))
        return env

    def read(self, env: dict[Any, V], atom: Any) -> V:
        """Return the value of a variable or literal."""
        return self.unknown if isinstance(atom, Literal) else env.get(atom, self.unknown)

    def through(self, eqn: JaxprEqn, entering: list[V]) -> Sequence[V]:
        """Return the values of the results of one equation, structured or not."""
        bodies = bodies_of(eqn)
        if bodies is None or bodies.form not in self.follows:
            return self.equation(eqn, entering)
        inner = self.within(bodies)
        if bodies.form is Form.SCAN:
            return inner._scan(bodies.all[0], entering)
        if bodies.form is Form.WHILE:
            test, step = bodies.all
            return inner._while(test, step, entering)
        made = [inner.run(body.jaxpr, [entering[i] for i in body.inputs if i is not None]) for body in bodies.all]
        results = made[0]
        for other in made[1:]:
            results = [self.join(a, b) for a, b in zip(results, other, strict=True)]
        for i in bodies.also_needed:
            results = [self.under(entering[i], result) for result in results]
        return results

    def _scan(self, body: Body, entering: list[V]) -> list[V]:
        entered = self.at_any_trip(body, self.repeated(body, entering))
        results = self.run(body.jaxpr, entered)
        carry = entered[body.carry_start : body.carry_start + body.carry]
        return [*map(self.carried, carry, results), *results[body.carry :]]

    def at_any_trip(self, body: Body, entering: list[V]) -> list[V]:
        """Return the values of the arguments of a scan's body after any number of trips."""
        carried = range(body.carry_start, body.carry_start + body.carry)
        return self.settle(lambda values: self.run(body.jaxpr, values)[: body.carry], entering, carried)

    def _while(self, test: Body, body: Body, entering: list[V]) -> list[V]:
        given = [[entering[i] for i in part.inputs if i is not None] for part in (test, body)]
        carried = range(body.carry_start, len(body.inputs))

        def step(values: list[V]) -> list[V]:
            (holds,) = self.run(test.jaxpr, [*given[0][: test.carry_start], *values[body.carry_start :]])
            return [self.under(holds, result) for result in self.run(body.jaxpr, values)]

        return self.settle(step, given[1], carried)[body.carry_start :]

    def settle(self, step: Callable[[list[V]], list[V]], entering: list[V], carried: range) -> list[V]:
        """Return the values of a loop body's arguments once those of its carry have stopped changing."""
        settled = list(entering)
        while True:
            after = [self.join(settled[i], new) for i, new in zip(carried, step(settled), strict=True)]
            if after == settled[carried.start : carried.stop]:
                return settled
            settled[carried.start : carried.stop] = after


class Backward(Generic[N, P]):
    """Need of each variable, and a payload gathered from the equations that run.

    Subclasses say what one equation needs of its operands, given what is needed of its results.
    """

    nothing: N
    everything: N

    def __init__(self) -> None:
        # a program that runs many times is walked once; the jaxpr is kept, so that its id stays its own
        self._walked: dict[Any, tuple[Jaxpr, P, tuple[N, ...]]] = {}

    def join(self, one: N, other: N) -> N:
        """Return the need of what two readers need."""
        raise NotImplementedError

    def runs(self, eqn: JaxprEqn, results: tuple[N, ...]) -> bool:
        """Return True where the equation runs."""
        return any(need != self.nothing for need in results)

    def facts(self, program: Program, known: tuple) -> Any:
        """Return the known values of a program before it runs, given those of its arguments."""
        del program, known

    def equation(self, eqn: JaxprEqn, results: tuple[N, ...], facts: Any) -> tuple[P, Sequence[N]]:
        """Return the payload of one equation and the needs of its operands."""
        raise NotImplementedError

    def gather(self, payloads: list[P]) -> P:
        """Return the payload of a program, from those of its equations in order."""
        raise NotImplementedError

    def known(self, eqn: JaxprEqn, body: Body, facts: Any) -> tuple:
        """Return the known arguments of a program that the equation runs; () for nothing."""
        del eqn, body, facts
        return ()

    def walk(self, program: Program, needed: tuple[N, ...], known: tuple = ()) -> tuple[P, tuple[N, ...]]:
        """Return the payload of a program and the needs of its arguments, given the needs of its results."""
        jaxpr = opened(program)
        key = id(jaxpr), needed, known
        if key not in self._walked:
            self._walked[key] = (jaxpr, *self._walk(program, needed, self.facts(program, known)))
        return self._walked[key][1:]

    def _walk(self, program: Program, needed: tuple[N, ...], facts: Any) -> tuple[P, tuple[N, ...]]:
        jaxpr = opened(program)
        needs: dict[Any, N] = {}

        def read(v: Any) -> N:
            return needs.get(v, self.nothing)

        def need(atoms: Sequence[Any], more: Sequence[N]) -> None:
            for v, n in zip(atoms, more, strict=True):
                if not isinstance(v, Literal):
                    needs[v] = self.join(read(v), n)

        need(jaxpr.outvars, needed)
        payloads: list[P] = []
        for eqn in reversed(jaxpr.eqns):
            results = tuple(map(read, eqn.outvars))
            if self.runs(eqn, results):
                payload, operands = self.equation(eqn, results, facts)
                need(eqn.invars, operands)
                payloads.append(payload)
        return self.gather(payloads[::-1]), tuple(map(read, jaxpr.invars))

    def bodies(self, eqn: JaxprEqn, bodies: Bodies, results: tuple[N, ...], facts: Any) -> tuple[list[P], list[N]]:
        """Return the payload of each program that an equation runs, and the needs of the equation's operands."""
        operands = [self.everything if i in bodies.also_needed else self.nothing for i in range(len(eqn.invars))]
        payloads = []
        for body in bodies.all:
            payload, arguments = self._settle(body, results, self.known(eqn, body, facts))
            payloads.append(payload)
            for i, need in zip(body.inputs, arguments, strict=True):
                if i is not None:
                    operands[i] = self.join(operands[i], need)
        return payloads, operands

    def _settle(self, body: Body, results: tuple[N, ...], known: tuple) -> tuple[P, tuple[N, ...]]:
        """Walk a body for the results that are needed, and for those that its next trip needs of the carry."""
        wanted = tuple(self.everything if i is None else results[i] for i in body.outputs)
        while True:
            payload, arguments = self.walk(body.jaxpr, wanted, known)
            carried = arguments[body.carry_start : body.carry_start + body.carry]
            again = (*map(self.join, wanted, carried), *wanted[body.carry :])
            if again == wanted:
                return payload, arguments
            wanted = again
