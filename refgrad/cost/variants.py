"""Branches and trips that are known before a program runs: at each trip of a scan, at each point of a kernel's grid.

The scalars that decide inside a body are evaluated for all of its trips or points at once. Trips or points with the
same decisions cost the same, so that each group is walked once.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from refgrad.cost.constants import Constants, Known, array_of, is_small, known_value
from refgrad.cost.trips import trips_of
from refgrad.jaxpr.calls import Bodies, Body, Form, is_kernel
from refgrad.jaxpr.deciding import deciding, grid_axes_inside
from refgrad.jaxpr.interpret import Interpreter
from refgrad.jaxpr.versions import closed, opened

RUNS = 2**22  # trips or points that are evaluated
GROUPS = 1024  # groups of them that are walked

Point = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Variant(Body):
    """A body at some of its trips or points, with what is known there of its arguments and of its place in a grid."""

    given: tuple[Known | None, ...] = ()
    point: Point | None = None
    grid: Point = ()

    @property
    def place(self) -> dict[str, Point] | None:
        """The place in the grid that a kernel's equations read; None outside a kernel."""
        return None if self.point is None else {"program_id": self.point, "num_programs": self.grid}


def variants(eqn: JaxprEqn, bodies: Bodies, facts: Constants) -> tuple[Bodies, str]:
    """Return the programs that run, where known: the branch that is taken, the variants of a loop or kernel.

    The second result says why there are none, where there are too many.
    """
    if bodies.form is Form.BRANCHES and len(bodies.all) > 1:
        index = facts.of(eqn.invars[0])
        if index is not None and index.value is not None:
            return dataclasses.replace(bodies, all=(bodies.all[int(index.value)],)), ""
    before, body = bodies.all[:-1], next(reversed(bodies.all))
    if is_kernel(eqn):
        found, untold = _varied(_Points(body, eqn.params["grid_mapping"]))
    elif bodies.form in (Form.SCAN, Form.WHILE):
        known = [None if i is None else facts.of(eqn.invars[i]) for i in body.inputs]
        if bodies.form is Form.WHILE:
            carry = len(body.inputs) - body.carry_start
            body = dataclasses.replace(body, trips=trips_of(eqn, bodies, body, facts), carry=carry)
        found, untold = _varied(_Trips(body, known, eqn.params.get("reverse", False)))
    else:
        return bodies, ""
    return (dataclasses.replace(bodies, all=(*before, *found)) if found else bodies), untold


def known_of(eqn: JaxprEqn, body: Body, facts: Constants) -> tuple[Known | None, ...]:
    """Return what is known of the arguments of a body."""
    if isinstance(body, Variant):
        return body.given
    return tuple(None if i is None else facts.of(eqn.invars[i]) for i in body.fixed_inputs())


class _Runs:
    """The runs of a body, and the scalars that decide in each of them."""

    def __init__(self, body: Body, runs: int | None):
        self.body, self.runs = body, runs
        self.jaxpr = opened(body.jaxpr)
        self.deciding = deciding(body.jaxpr)

    def decisions(self) -> list[Any] | None:
        """Return the deciding scalars that are known, an array over all runs each; None where there are none."""
        raise NotImplementedError

    def variant(self, run: int, trips: int) -> Variant:
        """Return the body as it is at this run, for so many runs."""
        raise NotImplementedError

    def made(self, values: Sequence[Any], point: Sequence[Any], wanted: Sequence[Any]) -> list[Any]:
        """Return the wanted variables from the arguments and the point, as far as these are known; else None."""
        evaluator = _Known(point)
        evaluator.run(self.body.jaxpr, values)
        return [evaluator.seen.get(v) for v in wanted]


def _varied(runs: _Runs) -> tuple[list[Variant], str]:
    """The variants of a body; none where nothing is decided in it, or where there are too many, which is said."""
    if not runs.deciding or not runs.runs:
        return [], ""
    if runs.runs > RUNS:
        return [], f"its {runs.runs:,} runs are too many to tell apart (at most {RUNS:,})"
    decisions = runs.decisions()
    if not decisions:
        return [], ""
    _, first, counts = np.unique(np.stack(decisions, 1), axis=0, return_index=True, return_counts=True)
    if len(first) > GROUPS:
        return [], f"its {len(first):,} kinds of runs are too many to tell apart (at most {GROUPS:,})"
    return [runs.variant(int(run), int(n)) for run, n in zip(first, counts, strict=True)], ""


class _Points(_Runs):
    """The points of a kernel's grid."""

    def __init__(self, body: Body, mapping: Any):
        batched = getattr(mapping, "vmapped_dims", ())  # of which the kernel does not know
        self.grid = tuple(n for i, n in enumerate(mapping.grid) if i not in batched)
        points = math.prod(self.grid) if body.trips is not None else None
        super().__init__(body, points)
        self.repeats = body.trips // points if body.trips and points else 1
        self.read_inside = grid_axes_inside(body.jaxpr)
        self.deciding += [None] * len(self.read_inside)

    def decisions(self) -> list[Any] | None:
        points = [x.ravel().astype(np.int32) for x in np.indices(self.grid)]
        unknown = [None] * len(self.jaxpr.invars)
        at = jax.vmap(lambda *point: self.made(unknown, (point, self.grid), self.deciding))
        return [*_flat(jax.jit(at)(*points)), *(points[axis] for axis in self.read_inside)]

    def variant(self, run: int, trips: int) -> Variant:
        point = tuple(map(int, np.unravel_index(run, self.grid)))
        given = (None,) * len(self.jaxpr.invars)
        trips *= self.repeats
        return Variant(**{**vars(self.body), "trips": trips}, given=given, point=point, grid=self.grid)


class _Trips(_Runs):
    """The trips of a loop."""

    def __init__(self, body: Body, known: Sequence[Known | None], reverse: bool):
        super().__init__(body, body.trips)
        self.known, self.reverse = list(known), reverse
        end = body.carry_start + body.carry
        self.carries = range(body.carry_start, end)
        self.sliced = range(end, len(self.jaxpr.invars))
        self._arguments: list[Any] = []

    def decisions(self) -> list[Any] | None:
        avals = [v.aval for v in self.jaxpr.invars]
        fixed = [array_of(k, a) for k, a in zip(self.known, avals[: self.carries.start], strict=False)]
        sliced = [self._entries(i) for i in self.sliced]
        carried = [array_of(self.known[i], avals[i]) if is_small(avals[i]) else None for i in self.carries]
        if all(x is None for x in (*carried, *sliced)):
            return None
        while True:
            step = lambda carry, rows: self._step(fixed, carry, rows)  # noqa: E731
            after = jax.eval_shape(step, carried, [None if x is None else x[0] for x in sliced])[0]
            kept = [c if a is not None else None for c, a in zip(carried, after, strict=True)]
            if all((a is None) == (b is None) for a, b in zip(kept, carried, strict=True)):
                break
            carried = kept
        _, (seen, self._arguments) = jax.lax.scan(step, carried, sliced, length=self.runs, reverse=self.reverse)
        return _flat(seen)

    def _step(self, fixed: list[Any], carry: list[Any], rows: list[Any]) -> tuple[list[Any], tuple[list[Any], Any]]:
        values = [*fixed, *carry, *rows]
        after = self.made(values, (), self.jaxpr.outvars[: self.body.carry])
        after = [a if c is not None else None for a, c in zip(after, carry, strict=True)]
        return after, (self.made(values, (), self.deciding), values[len(fixed) :])

    def _entries(self, i: int) -> Any:
        """The rows of a sliced operand, where they are known."""
        row: Any = self.jaxpr.invars[i].aval
        whole = jax.ShapeDtypeStruct((self.runs, *row.shape), row.dtype)
        return array_of(self.known[i], whole) if is_small(row) else None

    def variant(self, run: int, trips: int) -> Variant:
        moving = [None if x is None else known_value(np.asarray(x[run])) for x in self._arguments]
        given = (*self.known[: self.carries.start], *moving)
        return Variant(**{**vars(self.body), "trips": trips}, given=given)


class _Known(Interpreter):
    """Evaluates what is made of known small values alone; everything else is None."""

    def __init__(self, place: Sequence[Any]):
        super().__init__()
        self.place = dict(zip(("program_id", "num_programs"), place, strict=False))
        self.seen: dict[Any, Any] = {}

    def equation(self, eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
        """Return the outputs of one equation; None for those that are not known."""
        if eqn.primitive.name in self.place:
            made: Sequence[Any] = [jnp.int32(self.place[eqn.primitive.name][eqn.params["axis"]])]
        elif eqn.effects or any(x is None for x in values) or not all(is_small(v.aval) for v in eqn.outvars):
            made = [None] * len(eqn.outvars)
        else:
            made = self.bind(eqn, values)
        self.seen.update(zip(eqn.outvars, made, strict=True))
        return made

    def run(self, program: ClosedJaxpr | Jaxpr, values: Sequence[Any]) -> list:
        """Return the outputs of a program, and note the value of every variable."""
        self.seen.update(zip(opened(program).invars, values, strict=True))
        self.seen.update(zip(opened(program).constvars, closed(program).consts, strict=True))
        return super().run(program, values)


def _flat(values: Sequence[Any]) -> list[Any]:
    """Return, for each scalar of the values that are known, an array over all runs."""
    known = [np.asarray(x) for x in values if x is not None]
    return [column.astype(np.int64) for x in known for column in x.reshape(len(x), -1).T]
