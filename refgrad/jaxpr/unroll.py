"""Programs run in place: calls dissolved, loops trip by trip, the branch that is taken, without jit."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.extend.core import JaxprEqn

from refgrad.jaxpr.avals import dtype_of, shape_of
from refgrad.jaxpr.calls import Bodies, Body, Form, bodies_of, has_own_derivative
from refgrad.jaxpr.interpret import Interpreter


class Unrolled(Interpreter):
    """Runs structured equations in place, on real values. `trips` are the loop trips around the current equation."""

    trips: tuple[str, ...] = ()

    @contextlib.contextmanager
    def at(self, **where: Any) -> Iterator[None]:
        """Set attributes of this interpreter for the time of the block."""
        before = {name: getattr(self, name) for name in where}
        vars(self).update(where)
        yield
        vars(self).update(before)

    def can_unroll(self, eqn: JaxprEqn) -> bool:
        """Return True for an equation that `unroll` runs in place: one whose derivative is that of what it runs."""
        bodies = bodies_of(eqn)
        return bodies is not None and bodies.form in _IN_PLACE and not has_own_derivative(eqn)

    def unroll(self, eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
        """Run a structured equation in place."""
        bodies = bodies_of(eqn)
        assert bodies is not None
        return _IN_PLACE[bodies.form](self, eqn, bodies, values)

    def trip(self, eqn: JaxprEqn, number: int) -> contextlib.AbstractContextManager:
        """Return the context in which one trip of a loop runs."""
        return self.at(trips=(*self.trips, f"{eqn.primitive.name}[{number}]"))


def _call(run: Unrolled, eqn: JaxprEqn, bodies: Bodies, values: Sequence[Any]) -> Sequence[Any]:
    del eqn
    return run.call(bodies.all[0].jaxpr)(*values)


def _branches(run: Unrolled, eqn: JaxprEqn, bodies: Bodies, values: Sequence[Any]) -> Sequence[Any]:
    del eqn
    which = min(max(int(values[0]), 0), len(bodies.all) - 1)
    return run.call(bodies.all[which].jaxpr)(*values[1:])


def _scan(run: Unrolled, eqn: JaxprEqn, bodies: Bodies, values: Sequence[Any]) -> Sequence[Any]:
    (body,) = bodies.all
    step = run.call(body.jaxpr)
    consts, carry, slices = _operands(body, values, body.carry)
    trips = range(body.trips or 0)
    stacked: list = [None] * len(trips)
    for i in reversed(trips) if eqn.params.get("reverse") else trips:
        with run.trip(eqn, i):
            out = step(*consts, *carry, *(lax.index_in_dim(x, i, keepdims=False) for x in slices))
        carry, stacked[i] = out[: body.carry], out[body.carry :]
    if not stacked:
        return [*carry, *(jnp.zeros(shape_of(v), dtype_of(v)) for v in eqn.outvars[body.carry :])]
    return [*carry, *(jnp.stack(ys) for ys in zip(*stacked, strict=True))]


def _while(run: Unrolled, eqn: JaxprEqn, bodies: Bodies, values: Sequence[Any]) -> Sequence[Any]:
    test, body = bodies.all
    tested, carry, _ = _operands(test, [values[i] for i in test.inputs if i is not None], len(eqn.outvars))
    fixed = [values[i] for i in body.inputs[: body.carry_start] if i is not None]
    holds, step = Interpreter().call(test.jaxpr), run.call(body.jaxpr)
    trip = 0
    while holds(*tested, *carry)[0]:
        with run.trip(eqn, trip):
            carry = step(*fixed, *carry)
        trip += 1
    return carry


def _operands(body: Body, values: Sequence[Any], carried: int) -> tuple[Sequence, Sequence, Sequence]:
    """Split operands into (constants, carry, the rest)."""
    start = body.carry_start
    return values[:start], values[start : start + carried], values[start + carried :]


_IN_PLACE = {Form.CALL: _call, Form.BRANCHES: _branches, Form.SCAN: _scan, Form.WHILE: _while}
