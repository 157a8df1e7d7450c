"""The value and the derivative of a function in exact arithmetic, from its forward alone.

>>> truth = exact(lambda x: jnp.sqrt(x * x), jnp.zeros(1))
>>> truth.value[0].mid
array([0.])
>>> [str(entry) for entry in truth.entries()]
['kink: slopes -1 and 1']
"""

import contextlib
import copy
import dataclasses
import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flint import ctx

from refgrad.verify.exact.accuracy import accurate, largest, narrow, needs
from refgrad.verify.exact.arrays import Array, NotDecided, absent, full, pull_back
from refgrad.verify.exact.balls import Balls
from refgrad.verify.exact.entry import (
    BREAK,
    NOT_FINITE,
    SECOND,
    SEVERITY,
    Entry,
    bend,
    judge,
    obstacle_to,
    one_sided,
)
from refgrad.verify.exact.evaluate import Evaluator, lift
from refgrad.verify.exact.functions import real, terms
from refgrad.verify.exact.germ import ABSENT, ORDER, PRECISION, TIE, ZERO, Exponent, Germ, Undecided, slope
from refgrad.verify.exact.graph import NotSliceable
from refgrad.verify.exact.operations import OverBudget, operations
from refgrad.verify.exact.slices import JUDGED, Slice, Sliced, Values
from refgrad.verify.subject import Subject

TRIP = 2  # what an equation of a loop takes, as measured, over its estimate


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of exact arithmetic: precision in bits and the order of series, doubled until all is decided."""

    bits: int = 64
    """The accuracy that a result must reach, relative to it or to the function's own scale."""
    precision: tuple[int, int] = (128, 2048)
    order: tuple[int, int] = (2, 32)
    operations: float = 1e10
    """The most scalar operations of one evaluation, as `Truth.operations` counts them; OverBudget is raised beyond."""


def exact(
    f: Callable,
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    argnums: int | Sequence[int] | None = None,
    casts: Collection[str] = (),
    limits: Limits | None = None,
    stop_gradient: bool = False,
) -> "Truth":
    """Return the truth about `f` at `args`, found without autodiff, without a compiler and without a step size.

    The program is traced at the arguments' dtypes and evaluated in ℝ and ℂ, its constants at their exact values.

    Args:
      f: the function, from whose forward alone the truth follows.
      *args: pytrees; every float and complex array among their leaves is differentiated.
      kwargs: keyword arguments, held constant.
      argnums: the positions of `args` to differentiate, as for `jax.grad`; everything else is held constant.
      casts: dtypes, such as "bfloat16": casts to these round, all others do nothing.
      limits: the most that may be spent, as `refgrad.verify.exact.Limits`.
      stop_gradient: hold the result of `lax.stop_gradient` still; without it, `lax.stop_gradient` does nothing, as it
        does not change the function.

    Returns:
      A `Truth`, which evaluates on demand: `.value()`, `.gradient()`, `.entries()`, `.hessian()`.

    Raises:
      TypeError: where nothing can be differentiated.
      ValueError: where an argument is NaN.
      NoMeaning: from the methods of the result, where the program holds what has no meaning in exact arithmetic.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad.verify import exact
      >>> (slope,) = exact(lambda x: jnp.sqrt(x * x), jnp.array(-3.0)).gradient()
      >>> slope.mid.item()
      -1.0
    """
    names = [jnp.dtype(name).name for name in casts]
    f = functools.partial(f, **kwargs) if kwargs else f
    return Truth(Subject.of(f, args, argnums=argnums), names, limits or Limits(), stop_gradient)


class Truth:
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

    def at(self, diff: Sequence[Any], rest: Sequence[Any] | None = None) -> "Truth":
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
    def value(self) -> list[Balls]:
        """The value of each output."""
        size = self.size

        def compute() -> tuple[list[np.ndarray], set[str]]:
            made = self._value()
            return made, set().union(*(needs(x, size, self.limits.bits) for x in made))

        return [Balls(x) for x in self._settled(compute)]

    def along(self, *directions: Sequence[Any], derivative: int = 1) -> list[list[Balls]]:
        """Return for each direction the one-sided derivative of every output: D(v) of f(x + εv) at ε → 0+.

        `derivative=2` gives the second derivative in ε. An entry is undecided where the function jumps.
        """
        return [self._along([np.asarray(v) for v in d], derivative) for d in directions]

    def _along(self, direction: list[np.ndarray], derivative: int) -> list[Balls]:
        size = self.size

        def compute() -> tuple[list[np.ndarray], set[str]]:
            values, germs = self._value(), self._germs([(1, direction)])
            made = []
            for v, g in zip(values, germs, strict=True):
                found = [
                    one_sided(*pair, self.limits.bits, derivative) for pair in zip(v.ravel(), g.ravel(), strict=True)
                ]
                data = full(v.shape)
                data.ravel()[:] = [Undecided(s) if isinstance(s, str) else s for s in found]
                made.append(data)
            return made, set().union(*(needs(x, size, self.limits.bits) for x in made))

        return [Balls(x) for x in self._settled(compute)]

    def gradient(self, cotangents: Sequence[Any] | None = None) -> list[Balls]:
        """Return the cotangent of every argument, ⟨cotangents, J⟩, by one reverse sweep, as `jax.vjp` does.

        Entries that depend on a tie or a singular point are undecided: `entries` decides them.
        """
        cts = self._cotangents(cotangents)

        def compute() -> tuple[list[np.ndarray], set[str]]:
            try:
                xs, outputs = self._sweep()
            except NotDecided as trouble:
                return [full(x.shape, Undecided(trouble.why)) for x in self.leaves], {trouble.why}
            size = self._scale(cts)
            if ctx.prec < self.limits.precision[1] and not all(
                accurate(y.data, size, self.limits.bits) for y in outputs
            ):
                return self.leaves, {PRECISION}  # what the value lacks, its derivative lacks too
            reached = [_where_finite(c, y.data) for c, y in zip(cts, outputs, strict=True)]
            made = pull_back(outputs, reached, xs)
            return made, set().union(*(needs(x, size, self.limits.bits) for x in made))

        return [Balls(x) for x in self._settled(compute, bits=self._forward[0] if self._forward else 0)]

    def _sweep(self) -> tuple[list[Array], list[Array]]:
        """Return arguments and outputs through which cotangents return; the last is kept for other cotangents."""
        if self._forward is None or self._forward[0] != ctx.prec:
            xs = [Array.leaf(x) for x in self.leaves]
            outputs = self._outputs(xs)
            self._values.setdefault(ctx.prec, [y.data for y in outputs])
            self._forward = ctx.prec, xs, outputs
        return self._forward[1:]

    def hessian(
        self, direction: Sequence[Any], cotangents: Sequence[Any] | None = None
    ) -> tuple[list[Balls], list[Balls]]:
        """Return the derivative along a direction of the gradient of each argument, and of each output.

        The latter is the derivative of the gradient in the cotangents. Entries that depend on a tie or a singular point
        are undecided: `curvatures` decides them.
        """
        cts = self._cotangents(cotangents)
        vs = [_moving(x, v) for x, v in zip(self.leaves, direction, strict=True)]

        def compute() -> tuple[Any, set[str]]:
            xs = [Array.leaf(x) for x in self.leaves]
            for x, v in zip(xs, vs, strict=True):
                x.tangent = Array(v) if not absent(v).all() else None
            try:
                outputs = self._outputs(xs)
            except NotDecided as trouble:
                lost = Undecided(trouble.why)
                shapes = [v.aval.shape for v in self.program.jaxpr.outvars[: self.count]]
                return ([full(x.shape, lost) for x in xs], [full(s, lost) for s in shapes]), {trouble.why}
            tangents = [y.still() if y.tangent is None else y.tangent for y in outputs]
            moved = [_known(y.data, t.data) for y, t in zip(outputs, tangents, strict=True)]
            blocked = [_where_finite(c, y.data, ABSENT) for c, y in zip(cts, outputs, strict=True)]
            made = pull_back([*tangents, *outputs], [*cts, *blocked], xs)
            size = max(map(largest, vs)) or 1.0
            wanting = [needs(x, size * self._scale(cts) / self.size, self.limits.bits) for x in made]
            wanting += [needs(t, size * self._scale(cts), self.limits.bits) for t in moved]
            return (made, moved), set().union(*wanting)

        made, moved = self._settled(compute)
        outputs = [Balls(x) for x in moved]
        if not all(x.decided.all() for x in outputs):
            backwards = [-np.asarray(v) for v in direction]
            outputs = [Balls(_both(*sides)) for sides in zip(*self.along(direction, backwards), strict=True)]
        return [Balls(x) for x in made], outputs

    def entries(
        self, cotangents: Sequence[Any] | None = None, where: Sequence[tuple[int, tuple[int, ...]]] | None = None
    ) -> Iterator[Entry]:
        """Yield the verdict and both one-sided slopes of ⟨cotangents, f⟩ along each entry, of `where` or all of them.

        A place is (number of the argument, index). Cotangents are all 1 by default. A complex entry is yielded twice,
        along its real and its imaginary part.

        Each is judged on what it depends on alone, at the price of `cost`: what only adds a constant to an output is
        left out, whether it is finite or not. Raises OverBudget where that is more than `Limits.operations`.
        """
        numbers, part = self._numbers(cotangents), None
        cts = functools.cache(lambda: self._cotangents(cotangents))
        for leaf, index, imaginary in self._places(where):
            if not imaginary or part is None:
                part = self._slice(leaf, index, numbers)
            if part is None:
                yield self._entry(leaf, index, imaginary, functools.partial(self._slope, leaf, index, cts()))
                continue
            if part.cost > self.limits.operations:
                raise OverBudget(f"{self.subject.arguments[leaf]}{list(index)}", part.cost, self.limits.operations)
            reached = [_lifted(c.ravel()[at]) for c, at in zip(numbers, part.reached, strict=True)]
            start = _lifted(self.diff[leaf][index])[()]
            base = functools.cache(lambda bits, part=part, start=start: part.run(self._entries(bits), start))
            before = self._spent_on_slices()
            entry = self._entry(
                leaf, index, imaginary, functools.partial(self._sliced_slope, part, start, base, reached)
            )
            spent = self._spent_on_slices() - before
            self.spent, self._slices = self.spent + spent, max(self._slices, spent / max(part.cost, 1.0))
            yield entry

    def cost(self, leaf: int, index: tuple[int, ...], cotangents: Sequence[Any] | None = None) -> float:
        """Return an estimate of the scalar operations that judging one entry takes, without evaluating anything.

        It takes into account how far off the estimates of other entries were: loops run for how long they do.
        """
        part = self._slice(leaf, index, self._numbers(cotangents))
        return JUDGED * self.operations if part is None else part.cost * max(self._loops, self._slices)

    def _slice(self, leaf: int, index: tuple[int, ...], numbers: list[np.ndarray]) -> Slice | None:
        """Return what an entry reaches and needs; None where the program cannot be sliced."""
        if not self._sliced:
            try:
                rest = self.subject.rest
                self._sliced.append(Sliced(self.program, rest, self.count, self.casts, self.stop_gradient))
            except NotSliceable:
                self._sliced.append(None)
        (program,) = self._sliced
        if program is None:
            return None
        wanted = [None if c.all() else np.flatnonzero(c) for c in numbers]
        key = leaf, index, *(None if w is None else w.tobytes() for w in wanted)
        if self._part is None or self._part[0] != key:
            self._part = key, Slice(program, leaf, index, wanted)
        return self._part[1]

    def _entries(self, bits: int) -> Values:
        """Return the entries that slices share at one precision."""
        if bits not in self._still:
            self._still[bits] = Values(lambda i, at: _lifted(self.diff[i].ravel()[at]), self.limits.operations)
        return self._still[bits]

    def _spent_on_slices(self) -> float:
        return sum(values.spent for values in self._still.values())

    def _sliced_slope(
        self,
        part: Slice,
        start: Any,
        base: Callable[[int], list[np.ndarray]],
        cts: list[np.ndarray],
        step: complex,
    ) -> Any:
        """Return the slope of ⟨cts, f⟩ along the entry of a slice, or the obstacle to it."""
        moving = start + Germ({(1, 0): _lifted(np.asarray(step))[()]}) if start.is_finite() else start
        values, still = base(ctx.prec), self._entries(ctx.prec)
        total = self._total(
            cts, values, part.run(still, moving), lambda: _absorbs(values, part.run(still, Undecided(TIE)))
        )
        return total if isinstance(total, str) else self._certain(total, self._scale(cts, values))

    def curvatures(
        self,
        direction: Sequence[Any],
        cotangents: Sequence[Any] | None = None,
        where: Sequence[tuple[int, tuple[int, ...]]] | None = None,
    ) -> Iterator[Entry]:
        """Yield the verdict and both one-sided slopes, along each entry, of the derivative of ⟨cotangents, f⟩ along v.

        That is row by row the Hessian times v, decided by germs in both directions; `hessian` has all rows at once.
        """
        cts = self._cotangents(cotangents)
        vs = [np.asarray(v) for v in direction]
        found: dict[tuple[int, int], Any] = {}

        def value() -> Any:
            """Return the derivatives along v and −v at the point itself, or the obstacle to them."""
            key = ctx.prec, ctx.cap
            if key not in found:
                sides = tuple(self._derivative([(1, [s * v for v in vs])], cts) for s in (1, -1))
                words = [x for x in sides if isinstance(x, str)]
                found[key] = words[0] if words else sides if all(x.is_finite() for x in sides) else BREAK
            return found[key]

        for leaf, index, imaginary in self._places(where):

            def read(step: complex, leaf: int = leaf, index: tuple[int, ...] = index) -> Any:
                if isinstance(at := value(), str):
                    return at
                unit = 1, self._unit(leaf, index, step)
                right, left = (self._summed([unit, (SECOND, [s * v for v in vs])], cts) for s in (1, -1))
                return self._certain(bend(right, left, at), self._scale(cts))

            yield self._entry(leaf, index, imaginary, read, order=4)

    def _places(
        self, where: Sequence[tuple[int, tuple[int, ...]]] | None
    ) -> Iterator[tuple[int, tuple[int, ...], bool]]:
        """Yield (argument, index, along the imaginary part) for each place, or for all of them."""
        if where is None:
            where = [(i, at) for i, x in enumerate(self.diff) for at in np.ndindex(x.shape)]
        for leaf, index in where:
            yield leaf, index, False
            if np.iscomplexobj(self.diff[leaf]):
                yield leaf, index, True

    def _unit(self, leaf: int, index: tuple[int, ...], step: complex) -> list[np.ndarray]:
        direction = [np.zeros(x.shape, type(step)) for x in self.leaves]
        direction[leaf][index] = step
        return direction

    def _entry(
        self, leaf: int, index: tuple[int, ...], imaginary: bool, read: Callable[[complex], Any], order: int = 0
    ) -> Entry:
        """Return the verdict on one entry, given what reads the slope along a step of ±1 or ±i."""

        def compute() -> tuple[Entry, set[str]]:
            below, above = (read(step * 1j if imaginary else step) for step in (-1, 1))
            entry = judge(leaf, index, below, above, imaginary)
            return entry, {entry.why} & {PRECISION, ORDER}

        entry = self._settled(compute, order=order)
        if entry.why in (PRECISION, ORDER):
            bits, order = self.limits.precision[1], self.limits.order[1]
            return dataclasses.replace(entry, why=f"{entry.why}, up to {bits} bits and order {order}")
        return entry

    def _slope(self, leaf: int, index: tuple[int, ...], cts: list[np.ndarray], step: complex) -> Any:
        """Return the slope of ⟨cts, f⟩ along one entry, or the obstacle to it."""
        values, germs = self._value(), self._germs([(1, self._unit(leaf, index, step))])
        total = self._total(cts, values, germs, lambda: self._depends(leaf, index))
        return total if isinstance(total, str) else self._certain(total, self._scale(cts))

    def _total(
        self,
        cts: list[np.ndarray],
        values: list[np.ndarray],
        germs: list[np.ndarray],
        depends: Callable[[], bool],
    ) -> Any:
        """Return the slope of ⟨cts, f⟩ given the outputs and their germs, or the obstacle to it.

        An output that is not finite counts only where it `depends` on the entry.
        """
        depends, total, worst = functools.cache(depends), ZERO, ""
        for ct, v, g in zip(cts, values, germs, strict=True):
            for c, a, b in zip(ct.ravel(), v.ravel(), g.ravel(), strict=True):
                if not c.is_zero():
                    found = one_sided(a, b, self.limits.bits)
                    if found == NOT_FINITE and not depends():
                        continue
                    if isinstance(found, str):
                        worst = max(worst, found, key=lambda why: SEVERITY.get(why, 1))
                    elif not found.is_finite() or found != 0:
                        total = total + (c * found).real
        return worst or total

    def _certain(self, slope: Any, scale: float) -> Any:
        """Return a slope if it is known well enough, else what would help."""
        if isinstance(slope, str) or not slope.is_finite():
            return slope
        return slope if narrow(slope, scale, self.limits.bits) else PRECISION

    def _derivative(self, moving: list[tuple[Exponent, list[np.ndarray]]], cts: list[np.ndarray]) -> Any:
        """Return the derivative of ⟨cts, f⟩ along a direction, or the obstacle to it."""
        total = self._summed(moving, cts)
        found = slope(total) if not isinstance(total, str) else total
        return found.why if isinstance(found, Undecided) else found

    def _summed(self, moving: list[tuple[Exponent, list[np.ndarray]]], cts: list[np.ndarray]) -> Any:
        """Return the germ of ⟨cts, f⟩, or what keeps it from having derivatives."""
        total: Any = ZERO
        for ct, v, g in zip(cts, self._value(), self._germs(moving), strict=True):
            for c, a, b in zip(ct.ravel(), v.ravel(), g.ravel(), strict=True):
                if not c.is_zero():
                    if obstacle := obstacle_to(a, b, self.limits.bits):
                        return obstacle
                    total = total + real(b * c)
        return total

    def _depends(self, leaf: int, index: tuple[int, ...]) -> bool:
        """Return True where an output that is not finite depends on an entry: where it is not determined without it."""
        xs = [x.copy() for x in self.leaves]
        xs[leaf][index] = Undecided(TIE)
        with contextlib.suppress(NotDecided):
            return _absorbs(self._value(), [y.data for y in self._outputs([Array(x) for x in xs])])
        return True

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
                    x[at] = start + Germ({(q, 0): _lifted(v[at])[()]}) if start.is_finite() else start
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

    @functools.cached_property
    def size(self) -> float:
        """The largest finite argument, 1 where all are 0."""
        wide = [np.abs(x.astype(np.complex128 if np.iscomplexobj(x) else np.float64)) for x in self.diff]
        return max((float(np.max(x, initial=0.0, where=np.isfinite(x))) for x in wide), default=0.0) or 1.0

    def _scale(self, cts: list[np.ndarray], values: list[np.ndarray] | None = None) -> float:
        """The function's own scale: the largest output by the largest argument."""
        values = self._value() if values is None else values
        products = [np.asarray(c * v, object) for c, v in zip(cts, values, strict=True)]
        return max(map(largest, products), default=0.0) / max(1.0, self.size)


def _lifted(x: np.ndarray) -> np.ndarray:
    """Return numbers at their exact values."""
    return lift(np.asarray(x * 1.0)).data


def _absorbs(values: list[np.ndarray], lost: list[np.ndarray]) -> bool:
    """Return True where an output that is not finite depends on an entry: it is lost where the entry is."""
    return any(
        isinstance(b, Undecided) and not isinstance(a, Undecided) and not a.is_finite()
        for before, after in zip(values, lost, strict=True)
        for a, b in zip(before.ravel(), after.ravel(), strict=True)
    )


def _where_finite(ct: np.ndarray, y: np.ndarray, elsewhere: Any = None) -> np.ndarray:
    """Return cotangents (or `elsewhere`), undecided where they are not 0 and the output is not finite."""

    def one(c: Any, v: Any) -> Any:
        return Undecided(TIE) if not c.is_zero() and not v.is_finite() else c if elsewhere is None else elsewhere

    return np.asarray(np.frompyfunc(one, 2, 1)(ct, y), object)


def _moving(x: np.ndarray, direction: Any) -> np.ndarray:
    """Return a direction at exact values, absent where it is 0 or where the argument is not finite."""
    v = lift(np.broadcast_to(np.asarray(direction) * 1.0, x.shape)).data
    return np.asarray(np.frompyfunc(lambda a, b: ABSENT if b.is_zero() or not a.is_finite() else b, 2, 1)(x, v), object)


def _both(right: Balls, left: Balls) -> np.ndarray:
    """Return derivatives along a direction, undecided where the opposite direction has another."""

    def one(a: Any, b: Any) -> Any:
        lost = next((x for x in (a, b) if isinstance(x, Undecided)), None)
        return lost or (a if a.is_finite() and (a + b).contains(0) else Undecided(TIE))

    return np.asarray(np.frompyfunc(one, 2, 1)(right.data, left.data), object)


def _known(y: np.ndarray, tangent: np.ndarray) -> np.ndarray:
    """Return the derivatives of outputs, undecided where they or their outputs are not finite."""

    def one(value: Any, moved: Any) -> Any:
        if not value.is_finite() or isinstance(moved, Undecided):
            return moved if isinstance(moved, Undecided) else Undecided(NOT_FINITE)
        return moved if moved.is_finite() else Undecided(TIE)

    return np.asarray(np.frompyfunc(one, 2, 1)(y, tangent), object)
