"""The derivative along one entry, from both sides: of a function, and of its derivative along a direction."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from flint import ctx

from refgrad.verify.exact.accuracy import narrow
from refgrad.verify.exact.arrays import Array, NotDecided
from refgrad.verify.exact.entry import BREAK, NOT_FINITE, SECOND, SEVERITY, Entry, bend, judge, obstacle_to, one_sided
from refgrad.verify.exact.forward import ExactForward, lifted
from refgrad.verify.exact.graph.graph import NotSliceable
from refgrad.verify.exact.graph.slices import JUDGED, Slice, Sliced, Values
from refgrad.verify.exact.operations import OverBudget
from refgrad.verify.exact.scalars.elementary import real
from refgrad.verify.exact.scalars.germ import ORDER, PRECISION, TIE, ZERO, Exponent, Germ, Undecided, slope

Place = tuple[int, tuple[int, ...]]
"""An entry of the arguments: (number of the argument, index)."""


class Entries(ExactForward):
    """A function whose entries are judged one by one, each on what it depends on."""

    def entries(self, cotangents: Sequence[Any] | None = None, where: Sequence[Place] | None = None) -> Iterator[Entry]:
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
            reached = [lifted(c.ravel()[at]) for c, at in zip(numbers, part.reached, strict=True)]
            start = lifted(self.diff[leaf][index])[()]
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

    def curvatures(
        self,
        direction: Sequence[Any],
        cotangents: Sequence[Any] | None = None,
        where: Sequence[Place] | None = None,
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

    def _places(self, where: Sequence[Place] | None) -> Iterator[tuple[int, tuple[int, ...], bool]]:
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
            self._still[bits] = Values(lambda i, at: lifted(self.diff[i].ravel()[at]), self.limits.operations)
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
        moving = start + Germ({(1, 0): lifted(np.asarray(step))[()]}) if start.is_finite() else start
        values, still = base(ctx.prec), self._entries(ctx.prec)
        total = self._total(
            cts, values, part.run(still, moving), lambda: _absorbs(values, part.run(still, Undecided(TIE)))
        )
        return total if isinstance(total, str) else self._certain(total, self._scale(cts, values))

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


def _absorbs(values: list[np.ndarray], lost: list[np.ndarray]) -> bool:
    """Return True where an output that is not finite depends on an entry: it is lost where the entry is."""
    return any(
        isinstance(b, Undecided) and not isinstance(a, Undecided) and not a.is_finite()
        for before, after in zip(values, lost, strict=True)
        for a, b in zip(before.ravel(), after.ravel(), strict=True)
    )
