"""Programs run in place: calls dissolved, loops trip by trip, the branch that is taken, without jit.

The values are JAX's arrays, or others that a subclass can index, stack and read a condition from.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from refgrad.jaxpr.avals import dtype_of, shape_of
from refgrad.jaxpr.calls import Bodies, Body, Form, bodies_of, has_own_derivative
from refgrad.jaxpr.interpret import Interpreter


class Unrolled(Interpreter):
    """Interpreter that runs structured equations in place, on real values.

    `trips` are the loop trips around the current equation.
    """

    trips: tuple[str, ...] = ()

    @contextlib.contextmanager
    def at(self, **where: Any) -> Iterator[None]:
        """Set attributes of this interpreter for the time of the block."""
        before = {name: getattr(self, name) for name in where}
        vars(self).update(where)
        yield
        vars(self).update(before)

    def index(self, values: Any, i: int) -> Any:
        """Return entry i along the leading axis."""
        return lax.index_in_dim(values, i, keepdims=False)

    def stack(self, values: Sequence[Any], result: Any) -> Any:
        """Return values along a new leading axis: the value of the variable `result`."""
        return jnp.stack(values) if values else jnp.zeros(shape_of(result), dtype_of(result))

    def concrete(self, value: Any) -> np.ndarray:
        """Return what the next step depends on: the number of a branch, or the truth of a loop's condition."""
        return np.asarray(value)

    def where(self, condition: np.ndarray, one: Any, other: Any) -> Any:
        """Return `one` where the condition holds, along the leading axes, else `other`."""
        return jnp.where(condition.reshape(condition.shape + (1,) * (one.ndim - condition.ndim)), one, other)

    def condition(self, program: ClosedJaxpr | Jaxpr) -> Callable[..., list]:
        """Return a loop's condition as a function."""
        return Interpreter().call(program)

    def can_unroll(self, eqn: JaxprEqn) -> bool:
        """Return True for an equation that `unroll` runs in place: one whose derivative is that of what it runs."""
        return self.runs_in_place(eqn) and not has_own_derivative(eqn)

    def runs_in_place(self, eqn: JaxprEqn) -> bool:
        """Return True for an equation whose value `unroll` computes."""
        bodies = bodies_of(eqn)
        return bodies is not None and bodies.form in _IN_PLACE

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
    which = min(max(int(run.concrete(values[0])), 0), len(bodies.all) - 1)
    return run.call(bodies.all[which].jaxpr)(*values[1:])


def _scan(run: Unrolled, eqn: JaxprEqn, bodies: Bodies, values: Sequence[Any]) -> Sequence[Any]:
    (body,) = bodies.all
    step = run.call(body.jaxpr)
    consts, carry, slices = _operands(body, values, body.carry)
    trips = range(body.trips or 0)
    stacked: list = [None] * len(trips)
    for i in reversed(trips) if eqn.params.get("reverse") else trips:
        with run.trip(eqn, i):
            out = step(*consts, *carry, *(run.index(x, i) for x in slices))
        carry, stacked[i] = out[: body.carry], out[body.carry :]
    columns = zip(*stacked, strict=True) if stacked else ((),) * (len(eqn.outvars) - body.carry)
    return [*carry, *(run.stack(ys, v) for ys, v in zip(columns, eqn.outvars[body.carry :], strict=True))]


def _while(run: Unrolled, eqn: JaxprEqn, bodies: Bodies, values: Sequence[Any]) -> Sequence[Any]:
    test, body = bodies.all
    tested, carry, _ = _operands(test, [values[i] for i in test.inputs if i is not None], len(eqn.outvars))
    fixed = [values[i] for i in body.inputs[: body.carry_start] if i is not None]
    holds, step = run.condition(test.jaxpr), run.call(body.jaxpr)
    trip = 0
    while np.any(lanes := run.concrete(holds(*tested, *carry)[0])):
        with run.trip(eqn, trip):
            after = step(*fixed, *carry)
        carry = after if np.all(lanes) else [run.where(lanes, a, b) for a, b in zip(after, carry, strict=True)]
        trip += 1
    return carry


def _operands(body: Body, values: Sequence[Any], carried: int) -> tuple[Sequence, Sequence, Sequence]:
    """Split operands into (constants, carry, the rest)."""
    start = body.carry_start
    return values[:start], values[start : start + carried], values[start + carried :]


_IN_PLACE = {Form.CALL: _call, Form.BRANCHES: _branches, Form.SCAN: _scan, Form.WHILE: _while}
