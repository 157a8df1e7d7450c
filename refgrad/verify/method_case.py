"""One call of a rule whose methods are checked one by one: its values, its truth in float64, and the rows about it."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from refgrad.jaxpr.hiprim import HI, JVP
from refgrad.jaxpr.methods import Places
from refgrad.jaxpr.scaffold import scaffold
from refgrad.verify import oracle as oracles
from refgrad.verify.allowance import C, allowance, reductions
from refgrad.verify.exact_oracle import ExactOracle
from refgrad.verify.kinks import kinks
from refgrad.verify.numbers import (
    NEIGHBOURS,
    compared,
    difference,
    draw,
    draws_like,
    errors,
    generator,
    jitter,
    largest,
    magnitude,
    moved_by,
    scaled,
    to_wide,
)
from refgrad.verify.oracle import Float64Program, ForwardOracle, Leaves, Oracle, first_line
from refgrad.verify.report import FAIL, OK, UNAVAILABLE, Row
from refgrad.verify.subject import Flat, pullback

Methods = tuple[str, ...]  # those that a row is about: the first names the row
Outcome = tuple[Any, list[Row]]

LARGEST = 0.25  # relative difference that is still put down to rounding
AWAY = 0.125  # part by which arguments are moved: away from kinks, and apart from each other


@dataclasses.dataclass
class MethodCase:
    """A rule called at `diff` and `rest`, with the methods that it has.

    `ruled` is the call, `plain` the forward without rules. `methods` says where each checked method stands, `lacks`
    what JAX does without each method that is missing.
    """

    name: str
    ruled: Flat
    plain: Flat
    diff: list
    rest: list
    names: Sequence[str]  # of the differentiated leaves
    methods: Mapping[str, Places]
    lacks: Mapping[str, str]
    seed: int = 0
    kind: str = HI
    tolerance: float = 0.0  # that the user states
    alone: bool = True  # whether arguments are moved one by one

    @functools.cached_property
    def outputs(self) -> list[jax.ShapeDtypeStruct]:
        """The types of the float outputs."""
        return jax.eval_shape(self.plain, self.diff, self.rest)[0]

    @functools.cached_property
    def labels(self) -> list[str]:
        """The names of the float outputs."""
        return ["output"] if len(self.outputs) == 1 else [f"output {k}" for k in range(len(self.outputs))]

    def cotangents(self, k: int = 0) -> list[np.ndarray]:
        """Return the k-th draw of cotangents."""
        return draws_like(generator(self.seed, k, 20), self.outputs)

    @functools.cached_property
    def tangents(self) -> list[np.ndarray]:
        """One draw of tangents."""
        return [draw(generator(self.seed, i, 21), np.shape(x), x.dtype) for i, x in enumerate(self.diff)]

    @functools.cached_property
    def oracle(self) -> Oracle:
        """The true cotangents."""
        return oracles.find(self.plain, self.diff, self.rest, self.cotangents(), generator(self.seed, 22))

    @functools.cached_property
    def forward(self) -> Float64Program:
        """The true values."""
        return Float64Program(self.plain, self.diff, self.rest)

    @functools.cached_property
    def pushed(self) -> ForwardOracle:
        """The true tangents."""
        return oracles.forward_mode(self.plain, self.diff, self.rest)

    @functools.cached_property
    def exact(self) -> ExactOracle:
        """The true tangents, where exact arithmetic is affordable."""
        return ExactOracle(self.plain, self.diff, self.rest, self.names, sweeps=1)

    def true_tangents(self, tangents: Sequence, diff: Sequence | None = None) -> tuple[Leaves, float]:
        """Return the true tangents of the float outputs, NaN for those without one, and their possible error."""
        if diff is None and (found := self.exact.tangents([to_wide(t) for t in tangents])) is not None:
            return found, 0.0
        return self.pushed.jvp(self.diff if diff is None else diff, self.rest, tangents), self.pushed.tolerance

    @functools.cached_property
    def reversed(self) -> Outcome:
        """Outputs and cotangents by the rule for the first draw, or the row that says why it has none."""
        return self.run(("vjp_bwd",), pullback(self.ruled), self.diff, self.rest, self.cotangents())

    @functools.cached_property
    def sound(self) -> bool:
        """True where the backward is right by itself, so that it can be used to judge other methods."""
        if "vjp_bwd" not in self.methods or self.reversed[1]:
            return False
        cts = self.cotangents()
        rows = self.compare_cotangents(("vjp_bwd",), self.reversed[0][1], cts, "")
        return not any(row.failed for row in rows)

    @functools.cached_property
    def lengths(self) -> tuple[Sequence[int], Sequence[int]]:
        """The longest reduction that feeds each output, and each cotangent, of the plain forward."""
        try:
            program = jax.make_jaxpr(pullback(self.plain))(self.diff, self.rest, self.cotangents())
        except Exception:  # JAX raises one of many errors without a reverse mode
            n = reductions(jax.make_jaxpr(lambda d, r: self.plain(d, r)[0])(self.diff, self.rest))
            return n, [max(n)] * len(self.diff)
        n = reductions(program)
        return n[: len(self.outputs)], n[len(self.outputs) :]

    def allowed(self, extra: float = 0.0) -> tuple[list[float], list[float]]:
        """Return the allowance of each output, and of each cotangent; twice the usual, since programs differ."""
        values = [2 * allowance(a.dtype, n) for a, n in zip(self.outputs, self.lengths[0], strict=True)]
        slopes = [2 * allowance(x.dtype, n) + extra for x, n in zip(self.diff, self.lengths[1], strict=True)]
        return values, slopes

    @functools.cached_property
    def conditioning(self) -> list[float]:
        """The error of autodiff of the plain forward at the given dtypes, per cotangent: rounding that none avoids."""
        try:
            got = scaffold(pullback(self.plain))(self.diff, self.rest, self.cotangents())[1]
        except Exception:  # JAX raises one of many errors without a reverse mode
            return [0.0] * len(self.diff)
        truth = self.oracle.cotangents(self.diff, self.rest, self.cotangents())
        return [difference(to_wide(g), t).error for g, t in zip(got, truth, strict=True)]

    @functools.cached_property
    def kinked(self) -> bool:
        """True where the forward has no derivative at these arguments, and exact arithmetic has not told where."""
        if self.kind == JVP and self.exact.whole:
            return False
        truth = lambda diff: self.oracle.cotangents(diff, self.rest, self.cotangents())  # noqa: E731
        expected = truth(self.diff)
        return self.oracle.entries and any(kinks(self.diff, truth, expected, expected, generator(self.seed, 4)))

    def moved(self, k: int) -> tuple[list, list]:
        """Return other arguments: floats a little smaller, integers in another order; the given ones for 0."""
        if k == 0:
            return self.diff, self.rest
        rng = generator(self.seed, k, 23)
        diff = [_smaller(x, rng) for x in self.diff]
        return diff, [jnp.roll(x, k) if jnp.issubdtype(x.dtype, jnp.integer) else x for x in self.rest]

    @functools.cached_property
    def aside(self) -> "MethodCase":
        """The same case at arguments away from kinks."""
        diff, rest = self.moved(1)
        return dataclasses.replace(self, diff=diff, rest=rest)

    def values(self, diff: Sequence, rest: Sequence) -> list[np.ndarray]:
        """Return the true float outputs, then the others as numbers."""
        floats, others = self.forward(diff, rest)
        return [*floats, *others]

    def compare_values(self, method: str, got: Sequence, expected: Leaves, note: str = "") -> Iterator[Row]:
        """Yield a row for each float output of a method, against its true value."""
        yield from self.compare(method, (method,), self.labels, got, expected, self.allowed()[0], self.outputs, note)

    def compare_tangents(
        self, method: str, outputs: Sequence, got: Sequence, tangents: Sequence, note: str
    ) -> Iterator[Row]:
        """Yield a row for each float output, against the true tangents for `tangents`; `outputs` are the values."""
        expected, tolerance = self.true_tangents(tangents)
        allowed = [max(a, self.tolerance) + tolerance for a in self.allowed()[0]]
        scales = self._tangent_scales(outputs, expected, tangents)
        pairs = zip(got, expected, allowed, scales, strict=True)
        if any(difference(to_wide(g), e, np.isnan(e), s).error > a for g, e, a, s in pairs):
            moved = self._tangent_movement(expected, tangents)
            allowed = [np.maximum(a, C * m / s) for a, m, s in zip(allowed, moved, scales, strict=True)]
        yield from self.compare(
            method, (method,), self.labels, got, expected, allowed, self.outputs, note, scales=scales
        )

    def _tangent_scales(self, outputs: Sequence, expected: Leaves, tangents: Sequence) -> list[float]:
        """The scales of a tangent's errors: its largest entry, or the function's own scale above that."""
        step = max((largest(to_wide(t)) / magnitude(x) for t, x in zip(tangents, self.diff, strict=True)))
        return [
            scaled(largest(np.where(np.isnan(e), 0.0, e)), largest(to_wide(y)) * step, y.dtype)
            for e, y in zip(expected, outputs, strict=True)
        ]

    def _tangent_movement(self, expected: Leaves, tangents: Sequence) -> Leaves:
        """Distance that the truth moves between neighbouring arguments, or that autodiff of the plain forward errs."""
        rng = generator(self.seed, 24)
        near = [self.pushed.jvp([jitter(x, rng) for x in self.diff], self.rest, tangents) for _ in range(NEIGHBOURS)]
        moved = moved_by(near, self.pushed.jvp(self.diff, self.rest, tangents))
        push = scaffold(lambda d, t: jax.jvp(lambda d: self.plain(d, self.rest)[0], (d,), (t,))[1])
        with contextlib.suppress(Exception):  # JAX raises one of many errors without a forward mode
            gaps = [errors(to_wide(a), e) for a, e in zip(push(self.diff, list(tangents)), expected, strict=True)]
            moved = [np.fmax(m, np.where(np.isfinite(g), g, 0.0)) for g, m in zip(gaps, moved, strict=True)]
        return [np.where(m <= LARGEST * np.abs(e), m, 0.0) for m, e in zip(moved, expected, strict=True)]

    def compare_cotangents(self, methods: Methods, got: Sequence, cts: Sequence, note: str) -> Iterator[Row]:
        """Yield a row for each differentiated leaf, against the true cotangents for `cts`."""
        expected = self.oracle.cotangents(self.diff, self.rest, cts)
        allowed = self.allowed(self.oracle.tolerance)[1]
        measure = self.oracle.measure
        yield from self.compare(methods[0], methods, self.names, got, expected, allowed, self.diff, note, measure)

    def compare(
        self,
        property: str,
        methods: Methods,
        labels: Sequence[str],
        got: Sequence,
        expected: Leaves,
        allowed: Sequence[Any],
        like: Sequence,
        note: str = "",
        measure: Callable[[Leaves], Leaves] = list,
        scales: Sequence[float] | None = None,
    ) -> Iterator[Row]:
        """Yield a row for each leaf; `like` has the types that are expected, `methods` those to blame.

        With `scales`, that of each leaf, `allowed` may differ from entry to entry, and NaN is not compared.
        """
        where = self.place(methods)
        heads = [(property, f"{self.name}: {label}") for label in labels]
        wrong = [
            f"{g.dtype}{list(np.shape(g))}, expected {x.dtype}{list(np.shape(x))}"
            for g, x in zip(got, like, strict=True)
            if (np.shape(g), g.dtype) != (np.shape(x), x.dtype)
        ]
        if wrong:
            yield Row(property, self.name, FAIL, note="; ".join(filter(None, (note, *wrong))), where=where)
            return
        for i, (head, g, e, most) in enumerate(
            zip(heads, measure([to_wide(g) for g in got]), expected, allowed, strict=True)
        ):
            if scales is not None:
                found, most = compared(g, e, most, scales[i], np.isnan(e))
                verdict = OK if found.error <= most else FAIL
                yield Row(*head, verdict, **found.cells(), allowed=most, note=note, where=where)
                continue
            found = difference(g, e)
            if found.error > most:
                most = max(most, min(LARGEST, C * max(self.conditioning, default=0.0)))
            fine = found.error <= most
            yield Row(*head, OK if fine else FAIL, **found.cells(), allowed=most, note=note, where=where)

    def run(self, methods: Methods, program: Callable, *args: Any, note: str = "") -> Outcome:
        """Return the outputs of the compiled program; where it raises, None and a row that says so."""
        return self.run_each(methods, [Job(program, args, note)])[0]

    def run_at(self, methods: Methods, program: Callable, given: Sequence[tuple]) -> Outcome:
        """Return the outputs of one program, compiled once, at several arguments; None and a row where it raises."""
        compiled = scaffold(program)
        try:
            return [compiled(*args) for args in given], []
        except Exception as error:  # whatever a user's method, or JAX on its behalf, raises
            return None, [self._raised(methods, "", error)]

    def run_each(self, methods: Methods, jobs: Sequence["Job"]) -> list[Outcome]:
        """Do the same for several programs, which are compiled as one unless one of them fails in that."""
        errors: dict[int, Exception] = {}

        def together(every):
            return [
                _caught(errors, i, job.program, args) for i, (job, args) in enumerate(zip(jobs, every, strict=True))
            ]

        try:
            found = scaffold(together)([job.args for job in jobs])
        except Exception as error:  # whatever a method raises when it is lowered
            if len(jobs) > 1:
                return [self.run_each(methods, [job])[0] for job in jobs]
            found, errors[0] = [None], error
        return [
            (y, [self._raised(methods, job.note, errors[i])] if i in errors else [])
            for i, (job, y) in enumerate(zip(jobs, found, strict=True))
        ]

    def _raised(self, methods: Methods, note: str, error: Exception) -> Row:
        text = f"raises {type(error).__name__}: {first_line(error)}"
        note = f"{note}: {text}" if note else text
        return Row(methods[0], self.name, FAIL, note=note, where=self.place(methods))

    def place(self, methods: Methods) -> str:
        """Return the places of the methods that may be wrong."""
        return ", or ".join(dict.fromkeys(place for m in methods for place in self.methods[m]))

    def unavailable(self, method: str) -> Iterator[Row]:
        """Yield the line that says that the rule lacks a method."""
        if method in self.lacks:
            yield Row(method, self.name, UNAVAILABLE, note=self.lacks[method])


class Job(NamedTuple):
    """A program to be compiled, its arguments, and their description in a report."""

    program: Callable
    args: tuple
    note: str


def _caught(errors: dict[int, Exception], i: int, program: Callable, args: tuple) -> Any:
    """Return the program's result; None where it raises, with the error in `errors`."""
    try:
        return program(*args)
    except Exception as error:  # whatever a user's method, or JAX on its behalf, raises
        errors[i] = error
        return None


def _smaller(x: Any, rng: np.random.Generator) -> jax.Array:
    """Return `x` with every entry a little smaller, and none of them 0."""
    own = to_wide(x)
    size = float(np.sqrt(np.mean(np.abs(own) ** 2))) if own.size else 1.0
    moved = np.where(own == 0, size or 1.0, own * 8) * rng.uniform(1 - AWAY, 1, own.shape) / 8
    return jnp.asarray(moved.astype(x.dtype))
