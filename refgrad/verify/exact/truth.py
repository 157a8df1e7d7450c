"""The value and the derivative of a function in exact arithmetic, from its forward alone.

>>> truth = exact(lambda x: jnp.sqrt(x * x), jnp.zeros(1))
>>> truth.value[0].mid
array([0.])
>>> [str(entry) for entry in truth.entries()]
['kink: slopes -1 and 1']
"""

import contextlib
import dataclasses
import enum
import functools
import operator
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flint import acb, arb, ctx

from refgrad.verify.exact.arrays import Array, NotDecided, full, pull_back
from refgrad.verify.exact.balls import Balls, width
from refgrad.verify.exact.evaluate import Evaluator, lift
from refgrad.verify.exact.functions import terms
from refgrad.verify.exact.germ import ABSENT, ORDER, PRECISION, TIE, ZERO, Undecided, limit, slope, variable
from refgrad.verify.subject import Subject


@dataclasses.dataclass(frozen=True)
class Limits:
    """What exact arithmetic may spend: precision in bits and the order of series, doubled until all is decided."""

    bits: int = 64
    """The accuracy that a result must reach, relative to it or to the function's own scale."""
    precision: tuple[int, int] = (128, 2048)
    order: tuple[int, int] = (2, 32)


class Verdict(enum.Enum):
    """What a function is along one entry of its arguments."""

    SMOOTH = "smooth"
    KINK = "kink"
    JUMP = "jump"
    END = "end of the domain"
    NOT_FINITE = "truth is not finite"
    UNDECIDED = "not decided"


@dataclasses.dataclass(frozen=True)
class Entry:
    """The derivative along one entry: the slopes from below and from above, None where there is none."""

    leaf: int
    index: tuple[int, ...]
    verdict: Verdict
    below: arb | None = None
    above: arb | None = None
    why: str = ""
    imaginary: bool = False
    """True along the imaginary part of a complex entry."""

    def __str__(self) -> str:
        sides = [f"{float(x.mid()):.6g}" for x in (self.below, self.above) if x is not None]
        text = {
            Verdict.SMOOTH: f": slope {sides[-1]}" if sides else "",
            Verdict.KINK: f": slopes {' and '.join(sides)}",
            Verdict.END: f": slope {' and '.join(sides)} from inside",
        }.get(self.verdict, f": {self.why}" if self.why else "")
        return f"{self.verdict.value}{text}"


def exact(f: Callable, *args: Any, casts: Collection[str] = (), limits: Limits | None = None) -> "Truth":
    """Return the truth about `f` at `args`, found without autodiff, without a compiler and without a step size.

    Every float and complex array among the arguments is differentiated; the program is traced at their dtypes and
    evaluated in ℝ and ℂ, its constants at their exact values. Casts to the dtypes named in `casts` ("bfloat16") round;
    all others do nothing.

    Raises TypeError where nothing can be differentiated, ValueError where an argument is NaN, and NoMeaning (from the
    methods of the result) where the program holds what has no meaning in exact arithmetic.
    """
    return Truth(Subject.of(f, args), [jnp.dtype(name).name for name in casts], limits or Limits())


class Truth:
    """A function at its arguments, evaluated on demand.

    Outputs and arguments are lists of the floating leaves, in the order of `jax.tree.leaves`.
    """

    def __init__(self, subject: Subject, casts: Collection[str], limits: Limits) -> None:
        self.subject, self.casts, self.limits = subject, casts, limits
        for name, x in zip(subject.arguments, subject.diff, strict=True):
            if np.isnan(np.asarray(x)).any():
                raise ValueError(f"{name} holds NaN: no function has a derivative there")
        flat = subject.flat()
        self.program, shapes = jax.make_jaxpr(flat, return_shape=True)(subject.diff, subject.rest)
        self.count = len(shapes[0])
        self.leaves = [lift(x).data for x in subject.diff]
        self._values: dict[int, list[np.ndarray]] = {}

    @functools.cached_property
    def value(self) -> list[Balls]:
        """The value of each output."""
        size = self._size()

        def compute() -> tuple[list[np.ndarray], set[str]]:
            made = self._value()
            return made, set().union(*(_needs(x, size, self.limits.bits) for x in made))

        return [Balls(x) for x in self._settled(compute)]

    def along(self, *directions: Sequence[Any], derivative: int = 1) -> list[list[Balls]]:
        """Return for each direction the one-sided derivative of every output: D(v) of f(x + εv) at ε → 0+.

        `derivative=2` gives the second derivative in ε. An entry is undecided where the function jumps.
        """
        return [self._along([np.asarray(v) for v in d], derivative) for d in directions]

    def _along(self, direction: list[np.ndarray], derivative: int) -> list[Balls]:
        size = self._size()

        def compute() -> tuple[list[np.ndarray], set[str]]:
            values, germs = self._value(), self._germs(direction)
            made = []
            for v, g in zip(values, germs, strict=True):
                found = [_side(*pair, self.limits.bits, derivative) for pair in zip(v.ravel(), g.ravel(), strict=True)]
                data = full(v.shape)
                data.ravel()[:] = [Undecided(s) if isinstance(s, str) else s for s in found]
                made.append(data)
            return made, set().union(*(_needs(x, size, self.limits.bits) for x in made))

        return [Balls(x) for x in self._settled(compute)]

    def gradient(self, cotangents: Sequence[Any] | None = None) -> list[Balls]:
        """Return the cotangent of every argument, ⟨cotangents, J⟩, by one reverse sweep, as `jax.vjp` does.

        Entries that depend on a tie or a singular point are undecided: `entries` decides them.
        """
        cts = self._cotangents(cotangents)

        def compute() -> tuple[list[np.ndarray], set[str]]:
            xs = [Array.leaf(x) for x in self.leaves]
            try:
                outputs = self._outputs(xs)
            except NotDecided as trouble:
                return [full(x.shape, Undecided(trouble.why)) for x in self.leaves], {trouble.why}
            self._values.setdefault(ctx.prec, [y.data for y in outputs])
            size = self._scale(cts)
            if ctx.prec < self.limits.precision[1] and not all(
                _accurate(y.data, size, self.limits.bits) for y in outputs
            ):
                return self.leaves, {PRECISION}  # what the value lacks, its derivative lacks too
            reached = [np.asarray(_where_finite(c, y.data), object) for c, y in zip(cts, outputs, strict=True)]
            made = pull_back(outputs, reached, xs)
            return made, set().union(*(_needs(x, size, self.limits.bits) for x in made))

        return [Balls(x) for x in self._settled(compute)]

    def entries(
        self, cotangents: Sequence[Any] | None = None, where: Sequence[tuple[int, tuple[int, ...]]] | None = None
    ) -> Iterator[Entry]:
        """Yield the verdict and both one-sided slopes of ⟨cotangents, f⟩ along each entry, of `where` or all of them.

        A place is (number of the argument, index). Cotangents are all 1 by default. A complex entry is yielded twice,
        along its real and its imaginary part.
        """
        cts = self._cotangents(cotangents)
        if where is None:
            where = [(i, at) for i, x in enumerate(self.leaves) for at in np.ndindex(x.shape)]
        for leaf, index in where:
            yield self._entry(leaf, index, cts, imaginary=False)
            if isinstance(self.leaves[leaf][index], acb):
                yield self._entry(leaf, index, cts, imaginary=True)

    def _entry(self, leaf: int, index: tuple[int, ...], cts: list[np.ndarray], imaginary: bool) -> Entry:
        def compute() -> tuple[Entry, set[str]]:
            below, above = (self._slope(leaf, index, step, cts, imaginary) for step in (-1, 1))
            entry = _judge(leaf, index, below, above, imaginary)
            return entry, {entry.why} & {PRECISION, ORDER}

        entry = self._settled(compute)
        if entry.why in (PRECISION, ORDER):
            bits, order = self.limits.precision[1], self.limits.order[1]
            return dataclasses.replace(entry, why=f"{entry.why}, up to {bits} bits and order {order}")
        return entry

    def _slope(self, leaf: int, index: tuple[int, ...], step: int, cts: list[np.ndarray], imaginary: bool) -> Any:
        """Return the slope of ⟨cts, f⟩ along one entry, or what stands in its way."""
        direction = [np.zeros(x.shape, complex if imaginary else float) for x in self.leaves]
        direction[leaf][index] = step * (1j if imaginary else 1)
        values, germs = self._value(), self._germs(direction)
        size = self._scale(cts)
        depends = functools.cache(lambda: self._depends(leaf, index))
        total, worst = ZERO, ""
        for ct, v, g in zip(cts, values, germs, strict=True):
            for c, a, b in zip(ct.ravel(), v.ravel(), g.ravel(), strict=True):
                if not c.is_zero():
                    side = _side(a, b, self.limits.bits)
                    if side == NOT_FINITE and not depends():
                        continue
                    if isinstance(side, str):
                        worst = max(worst, side, key=lambda why: _SEVERITY.get(why, 1))
                    elif not side.is_finite() or side != 0:
                        total = total + (c * side).real
        if worst:
            return worst
        return PRECISION if total.is_finite() and not _narrow(total, size, self.limits.bits) else total

    def _depends(self, leaf: int, index: tuple[int, ...]) -> bool:
        """Return True where an output that is not finite depends on an entry: where it is not determined without it."""
        xs = [x.copy() for x in self.leaves]
        xs[leaf][index] = Undecided(TIE)
        with contextlib.suppress(NotDecided):
            for before, after in zip(self._value(), self._outputs([Array(x) for x in xs]), strict=True):
                for a, b in zip(before.ravel(), after.data.ravel(), strict=True):
                    if isinstance(b, Undecided) and not isinstance(a, Undecided) and not a.is_finite():
                        return True
            return False
        return True

    def _value(self) -> list[np.ndarray]:
        if ctx.prec not in self._values:
            try:
                self._values[ctx.prec] = [y.data for y in self._outputs([Array(x) for x in self.leaves])]
            except NotDecided as trouble:
                shapes = [v.aval.shape for v in self.program.jaxpr.outvars[: self.count]]
                return [full(s, Undecided(trouble.why)) for s in shapes]
        return self._values[ctx.prec]

    def _germs(self, direction: list[np.ndarray]) -> list[np.ndarray]:
        xs = []
        for x, v in zip(self.leaves, direction, strict=True):
            data = [
                variable(a, b) if not b.is_zero() else a for a, b in zip(x.ravel(), lift(v).data.ravel(), strict=True)
            ]
            xs.append(full(x.shape))
            xs[-1].ravel()[:] = data
        try:
            return [y.data for y in self._outputs([Array(x) for x in xs])]
        except NotDecided as trouble:
            return [full(v.shape, Undecided(trouble.why)) for v in self._value()]

    def _outputs(self, xs: list[Array]) -> list[Array]:
        rest = [lift(x) for x in self.subject.rest]
        return Evaluator(self.casts).run(self.program, [*xs, *rest])[: self.count]

    def _settled(self, compute: Callable[[], tuple[Any, set[str]]]) -> Any:
        """Return what `compute` finds once it needs neither more precision nor a higher order, or at their limits."""
        (bits, most_bits), (order, most_order) = self.limits.precision, self.limits.order
        while True:
            with ctx.workprec(bits), terms(order), np.errstate(all="ignore"):
                found, needs = compute()
            more = (PRECISION in needs and bits < most_bits, ORDER in needs and order < most_order)
            if not any(more):
                return found
            bits, order = min(bits << more[0], most_bits), min(order << more[1], most_order)

    def _cotangents(self, cotangents: Sequence[Any] | None) -> list[np.ndarray]:
        avals = [v.aval for v in self.program.jaxpr.outvars[: self.count]]
        if cotangents is None:
            cotangents = [np.ones(a.shape, a.dtype) for a in avals]
        exact = [lift(np.broadcast_to(np.asarray(c), a.shape)).data for c, a in zip(cotangents, avals, strict=True)]
        return [np.asarray(np.frompyfunc(lambda c: ABSENT if c.is_zero() else c, 1, 1)(c), object) for c in exact]

    def _size(self) -> float:
        """The largest finite argument, 1 where all are 0."""
        return max((_largest(x) for x in self.leaves), default=0.0) or 1.0

    def _scale(self, cts: list[np.ndarray]) -> float:
        """The function's own scale: the largest output by the largest argument."""
        products = [np.asarray(c * v, object) for c, v in zip(cts, self._value(), strict=True)]
        return max(map(_largest, products), default=0.0) / max(1.0, self._size())


NOT_FINITE, JUMP, OUTSIDE = "not finite", "the limit is not the value", "outside the domain"
_SEVERITY = {"": 0, OUTSIDE: 2, JUMP: 3, NOT_FINITE: 4}  # what balls or series do not decide: 1


def _side(value: Any, germ: Any, bits: int, k: int = 1) -> Any:
    """Return the k-th derivative of an output along a direction, given its value, or what stands in its way."""
    if isinstance(value, Undecided):
        return value.why
    if not value.is_finite():
        return NOT_FINITE
    end = limit(germ)
    if isinstance(end, Undecided):
        return end.why
    if isinstance(end, arb) and end.is_nan():
        return OUTSIDE
    gap = end - value
    if not end.is_finite() or not gap.contains(0):
        return JUMP
    if not _narrow(gap, max(_largest(np.array([value], object)), 2.0**-bits), bits // 2):
        return PRECISION
    found = slope(germ, k)
    return found.why if isinstance(found, Undecided) else found


def _judge(leaf: int, index: tuple[int, ...], below: Any, above: Any, imaginary: bool) -> Entry:
    """Return the verdict on an entry, given the slope of each side as it goes away, or what stands in its way."""
    entry = functools.partial(Entry, leaf, index, imaginary=imaginary)
    words = [s for s in (below, above) if isinstance(s, str)]
    for word, verdict in ((NOT_FINITE, Verdict.NOT_FINITE), (JUMP, Verdict.JUMP)):
        if word in words:
            return entry(verdict, why=word)
    rest = [w for w in words if w != OUTSIDE]
    if rest:
        return entry(Verdict.UNDECIDED, why=rest[0])
    left, right = (None if isinstance(s, str) else s for s in (below, above))
    left = None if left is None else -left
    if left is None and right is None:
        return entry(Verdict.NOT_FINITE, why="outside the domain on both sides")
    if left is None or right is None:
        return entry(Verdict.END, left, right)
    if left.is_nan() or right.is_nan() or (not left.is_finite() and left == right):
        return entry(Verdict.NOT_FINITE, left, right, why="an infinite slope")
    if not left.is_finite() or not right.is_finite() or not (left - right).contains(0):
        return entry(Verdict.KINK, left, right)
    return entry(Verdict.SMOOTH, left, right)


def _floats(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return |midpoints| and radii of the finite balls of an array, roughly."""
    balls = x.ravel()
    if set(map(type, balls)) - {arb}:
        kept = (c for c in balls if isinstance(c, arb | acb))
        balls = [part for c in kept for part in ((c.real, c.imag) if isinstance(c, acb) else (c,))]
    parts = (map(float, map(operator.methodcaller(name), balls)) for name in ("mid", "rad"))
    mid, rad = (np.fromiter(part, np.float64, len(balls)) for part in parts)
    finite = np.isfinite(mid)
    return np.abs(mid[finite]), rad[finite]


def _largest(x: np.ndarray) -> float:
    return float(np.max(_floats(x)[0], initial=0.0))


def _where_finite(ct: np.ndarray, y: np.ndarray) -> Any:
    """Return cotangents, undecided where the output is not finite."""
    return np.frompyfunc(lambda c, v: c if c.is_zero() or v.is_finite() else Undecided(TIE), 2, 1)(ct, y)


def _narrow(x: Any, size: float, bits: int) -> bool:
    """Return True where a ball is known to `bits` bits, relative to itself or to `size`."""
    radius = width(x)
    return radius.is_zero() or radius <= abs(x).lower() / arb(2) ** bits or radius <= arb(size) / arb(2) ** bits


def _needs(x: np.ndarray, size: float, bits: int) -> set[str]:
    """Return what would help an array: more precision, a higher order."""
    undecided = {c.why for c in x.ravel() if isinstance(c, Undecided)} if Undecided in map(type, x.ravel()) else set()
    return undecided if _accurate(x, size, bits) else undecided | {PRECISION}


def _accurate(x: np.ndarray, size: float, bits: int) -> bool:
    """Return True where all balls are known to `bits` bits, relative to the largest, to `size` where all hold 0."""
    mid, rad = _floats(x)
    scale = np.max(mid, initial=0.0)
    scale = scale if scale > np.max(rad, initial=0.0) else size
    return bool(np.all(rad <= np.maximum(mid, scale) * 2.0**-bits))
