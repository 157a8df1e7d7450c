"""A function at its arguments, evaluated in exact arithmetic: its outputs, and their germs along a direction."""

import copy
import dataclasses
import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any, Self

import jax
import numpy as np
from flint import ctx

from refgrad.verify.exact.accuracy import largest
from refgrad.verify.exact.arrays import Array, NotDecided, full
from refgrad.verify.exact.evaluate import Evaluator, lift
from refgrad.verify.exact.graph.slices import Slice, Sliced, Values
from refgrad.verify.exact.operations import operations
from refgrad.verify.exact.scalars.functions import terms
from refgrad.verify.exact.scalars.germ import ABSENT, ORDER, PRECISION, Exponent, Germ, Undecided
from refgrad.verify.subject import Subject

TRIP = 2  # what an equation of a loop takes, as measured, over its estimate


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of exact arithmetic: precision in bits and the order of series, doubled until all is decided.

    Attributes:
      bits: the accuracy that a result must reach, relative to it or to the function's own scale.
      precision: the first precision and the last.
      order: the first order of series and the last.
      operations: the most scalar operations of one evaluation, as `Truth.operations` counts them.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad.verify.exact import Limits, exact
      >>> (y,) = exact(jnp.exp, jnp.array(1.0), limits=Limits(bits=200)).value
      >>> f"{y.data.item().mid().str(40, radius=False)}"
      '2.718281828459045235360287471352662497757'
    """

    bits: int = 64
    precision: tuple[int, int] = (128, 2048)
    order: tuple[int, int] = (2, 32)
    operations: float = 1e10


class ExactForward:
    """A function at its arguments, evaluated on demand.

    Outputs and arguments are lists of the floating leaves, in the order of `jax.tree.leaves`.
    """

    def __init__(self, subject: Subject, casts: Collection[str], limits: Limits, stop_gradient: bool = False) -> None:
        self.subject, self.casts, self.limits, self.stop_gradient = subject, casts, limits, stop_gradient
        self._start(subject.diff)
        self.program, shapes = jax.make_jaxpr(subject.flat(), return_shape=True)(subject.diff, subject.rest)
        self.count = len(shapes[0])
        self._loops = self._slices = 1.0  # operations of an evaluation, and of judging an entry, over their estimates
        self.spent = 0.0  # operations of the equations evaluated so far
        self._sliced: list[Sliced | None] = []
        self._part: tuple[Any, Slice] | None = None

    def _start(self, diff: Sequence[Any]) -> None:
        self.diff = [np.asarray(x) for x in diff]
        for name, x in zip(self.subject.arguments, self.diff, strict=True):
            if np.isnan(x).any():
                raise ValueError(f"{name} holds NaN: no function has a derivative there")
        for name in ("leaves", "size", "value"):
            vars(self).pop(name, None)
        self._values: dict[int, list[np.ndarray]] = {}
        self._still: dict[int, Values] = {}
        self._forward: tuple[int, list[Array], list[Array]] | None = None

    def at(self, diff: Sequence[Any], rest: Sequence[Any] | None = None) -> Self:
        """Return the truth at other values of the leaves, of the same shapes, without tracing it again.

        `rest` replaces the arrays that are not differentiated, too.
        """
        shapes = [x.shape for x in self.diff]
        if [np.shape(x) for x in diff] != shapes:
            raise ValueError(f"values of shapes {[np.shape(x) for x in diff]} for leaves of shapes {shapes}")
        other = copy.copy(self)
        if rest is not None:
            other.subject, other._sliced = self.subject.at(self.subject.diff, rest), []
        other._start(diff)
        return other

    @functools.cached_property
    def leaves(self) -> list[np.ndarray]:
        """The differentiated leaves at their exact values."""
        return [lift(x).data for x in self.diff]

    @functools.cached_property
    def _estimate(self) -> float:
        """The operations of one evaluation, a loop of unknown length counted once."""
        return operations(self.program)

    @property
    def operations(self) -> float:
        """An estimate of the scalar operations (50 ns each) of one evaluation.

        A loop of unknown length is counted once until it has run. A gradient takes about four evaluations; an entry
        what `cost` says.
        """
        return self._estimate * self._loops

    @functools.cached_property
    def size(self) -> float:
        """The largest finite argument, 1 where all are 0."""
        wide = [np.abs(x.astype(np.complex128 if np.iscomplexobj(x) else np.float64)) for x in self.diff]
        return max((float(np.max(x, initial=0.0, where=np.isfinite(x))) for x in wide), default=0.0) or 1.0

    def _value(self) -> list[np.ndarray]:
        if ctx.prec not in self._values:
            try:
                self._values[ctx.prec] = [y.data for y in self._outputs([Array(x) for x in self.leaves])]
            except NotDecided as trouble:
                shapes = [v.aval.shape for v in self.program.jaxpr.outvars[: self.count]]
                return [full(s, Undecided(trouble.why)) for s in shapes]
        return self._values[ctx.prec]

    def _germs(self, moving: list[tuple[Exponent, list[np.ndarray]]]) -> list[np.ndarray]:
        """Return the outputs of the arguments plus ε^q times a direction, for each (q, direction)."""
        xs = [x.copy() for x in self.leaves]
        for q, direction in moving:
            for x, v in zip(xs, direction, strict=True):
                v = np.broadcast_to(v, x.shape)
                for at in map(tuple, np.argwhere(v)):
                    start: Any = x[at]
                    x[at] = start + Germ({(q, 0): lifted(v[at])[()]}) if start.is_finite() else start
        try:
            return [y.data for y in self._outputs([Array(x) for x in xs])]
        except NotDecided as trouble:
            return [full(v.shape, Undecided(trouble.why)) for v in self._value()]

    def _outputs(self, xs: list[Array]) -> list[Array]:
        rest = [lift(x) for x in self.subject.rest]
        evaluator = Evaluator(self.casts, self.limits.operations, self.stop_gradient)
        try:
            outputs = evaluator.run(self.program, [*xs, *rest])[: self.count]
        finally:
            self.spent += evaluator.budget.spent
        if evaluator.budget.spent > self._estimate:
            self._loops = max(self._loops, TRIP * evaluator.budget.spent / self._estimate)
        return outputs

    def _settled(self, compute: Callable[[], tuple[Any, set[str]]], bits: int = 0, order: int = 0) -> Any:
        """Return what `compute` finds once it needs neither more precision nor a higher order, or at their limits.

        It starts with `bits` and `order`, or at the lower limits.
        """
        (least_bits, most_bits), (least_order, most_order) = self.limits.precision, self.limits.order
        bits, order = min(max(bits, least_bits), most_bits), min(max(order, least_order), most_order)
        while True:
            with ctx.workprec(bits), terms(order), np.errstate(all="ignore"):
                found, wanting = compute()
            more = (PRECISION in wanting and bits < most_bits, ORDER in wanting and order < most_order)
            if not any(more):
                return found
            bits, order = min(bits << more[0], most_bits), min(order << more[1], most_order)

    def _numbers(self, cotangents: Sequence[Any] | None) -> list[np.ndarray]:
        """Return a cotangent for each output, all 1 by default."""
        avals = [v.aval for v in self.program.jaxpr.outvars[: self.count]]
        if cotangents is None:
            cotangents = [np.ones((), a.dtype) for a in avals]
        return [np.broadcast_to(np.asarray(c), a.shape) for c, a in zip(cotangents, avals, strict=True)]

    def _cotangents(self, cotangents: Sequence[Any] | None) -> list[np.ndarray]:
        exact = [lift(c).data for c in self._numbers(cotangents)]
        return [np.asarray(np.frompyfunc(lambda c: ABSENT if c.is_zero() else c, 1, 1)(c), object) for c in exact]

    def _scale(self, cts: list[np.ndarray], values: list[np.ndarray] | None = None) -> float:
        """The function's own scale: the largest output by the largest argument."""
        values = self._value() if values is None else values
        products = [np.asarray(c * v, object) for c, v in zip(cts, values, strict=True)]
        return max(map(largest, products), default=0.0) / max(1.0, self.size)


def lifted(x: np.ndarray) -> np.ndarray:
    """Return numbers at their exact values."""
    return lift(np.asarray(x * 1.0)).data
