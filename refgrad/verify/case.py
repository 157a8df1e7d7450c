"""One check in progress: the programs that its properties share, each compiled once, and the random draws."""

import copy
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, JaxprEqn
from jax.sharding import NamedSharding

from refgrad.jaxpr import methods
from refgrad.jaxpr.programs import STOP_GRADIENT, equations, located
from refgrad.jaxpr.rules import HI, RuleCall, rule_of
from refgrad.jaxpr.scaffold import scaffold
from refgrad.jaxpr.uncompiled import uncompiled
from refgrad.verify import method_cases
from refgrad.verify.allowance import C, allowance, reductions
from refgrad.verify.clock import Clock
from refgrad.verify.kinks import kinks
from refgrad.verify.lane import Lane
from refgrad.verify.meaning import Meaning
from refgrad.verify.method_case import MethodCase
from refgrad.verify.numbers import (
    NEIGHBOURS,
    Difference,
    compared,
    difference,
    draws_like,
    errors,
    generator,
    jitter,
    largest,
    moved_by,
    scaled,
    to_wide,
)
from refgrad.verify.oracle import Float64Program, Leaves, eagerly
from refgrad.verify.points import Points, suspects
from refgrad.verify.rules import Plain, described, remaining_rules
from refgrad.verify.subject import Flat, Subject, pullback
from refgrad.verify.widen import is_narrow

PRECISION = "highest"  # of every matmul, in the rule and in the oracle alike
SAME = 1e-12  # relative difference of a rule in float64 from truth, below which their traces are the same function
UNCERTAIN = 1e-4  # relative: a truth that moves by more between neighbours in float64 does not move by rounding
MANY = 8  # calls of rules: above that a function is a model
LONG = 800  # equations of a rule: above that compiling it takes seconds
SHARED = ("rules", "outputs", "rule", "primal", "autodiff", "rule_wide", "allowed", "allowed_wide", "allowed_values")
LARGEST = 0.25  # relative difference that is still put down to rounding, whatever the dtype and length


class Gradients(NamedTuple):
    """The cotangents of the differentiated leaves for one draw: what was got, in truth, by autodiff.

    Truth is NaN where it is not known. Autodiff is None where it is itself the truth, or cannot be computed.
    """

    got: Leaves
    truth: Leaves
    autodiff: Leaves | None


class Case:
    """`f` at its arguments, with its oracle. Everything is found on first use: a property costs only its own."""

    def __init__(
        self,
        subject: Subject,
        *,
        draws: int,
        seed: int,
        order: int,
        meaning: Meaning | None = None,
        tolerance: float = 0.0,
        clock: Clock | None = None,
        within: Sequence[tuple[float, float] | None] = (),
    ) -> None:
        self.within = dict(enumerate(within))
        self.subject, self.draws, self.seed, self.order = subject, draws, seed, order
        self.diff, self.rest = subject.diff, subject.rest
        self.flat = self._typed(subject.flat())
        self.tolerance, self.clock = tolerance, clock or Clock()
        self.jitted = True
        self.exact_alone = False  # whether float64 autodiff is not asked about what exact arithmetic leaves open
        self.retry_uncompiled = True  # whether a failing rule is tried without the compiler before it is blamed
        meaning = meaning or Meaning.of(subject)
        self.plain: Flat = meaning.plain
        self.reference_vjp = meaning.cotangents
        self.reference_name = meaning.name  # what stands in for the plain forward
        self.bound = meaning.bound  # of a slope that is finite on purpose
        self.lanes: dict[tuple[bool, bool], Lane] = {}

    def variant(self, f: Callable) -> "Case":
        """The same case for a function that differs in its rule alone: truth and autodiff are shared."""
        names = ["outputs", "held", "own", "lane", "autodiff", "_autodiff_wide", "allowed", "allowed_wide"]
        if self.own.exact.whole:  # else they depend on where the rule differs from the truth
            names.append("points")
        other = self._sharing(names)
        other.subject = dataclasses.replace(self.subject, f=f)
        other.flat = other._typed(other.subject.flat())
        other.retry_uncompiled = False  # the right rule has passed under the same compiler
        return other

    def _sharing(self, names: Sequence[str]) -> "Case":
        """A copy that has found nothing yet but what is named."""
        shared = {name: getattr(self, name) for name in names}
        other = copy.copy(self)
        for name, value in vars(type(self)).items():
            if isinstance(value, functools.cached_property):
                other.__dict__.pop(name, None)
        other.__dict__.update(shared)
        return other

    def at(self, diff: Sequence, rest: Sequence, operations: float) -> "Case | None":
        """The same function at other arguments of the same types: every program is shared, and nothing is compiled.

        Truth is that of exact arithmetic alone, within so many scalar operations; None where it decides nothing.
        """
        other = self._sharing(SHARED)
        other.subject, other.diff, other.rest = self.subject.at(diff, rest), list(diff), list(rest)
        lane = self.lane.at(other.subject, operations)
        own = lane if self.one_trace else self.own.at(other.subject, operations)
        if lane is None or own is None:
            return None
        other.lane, other.own, other.lanes = lane, own, {}
        other.exact_alone = True
        return other

    def _typed(self, flat: Flat) -> Flat:
        """Return `flat`, which refuses other types than the given ones where a HiPrim inside it was made for these.

        JAX itself runs one at any types, as if they were its own.
        """

        def typed(diff: Sequence, rest: Sequence) -> tuple[list, list]:
            same = all(x.dtype == own.dtype for x, own in zip(diff, self.diff, strict=True))
            if not same and any(rule.kind == HI for rule in self.rules):
                jax.eval_shape(self.plain, diff, rest)
            return flat(diff, rest)

        return typed

    @functools.cached_property
    def program(self) -> ClosedJaxpr:
        """`f` as it is traced, with its rules. Raises what `f` raises."""
        return jax.make_jaxpr(self.flat)(self.diff, self.rest)

    @functools.cached_property
    def staged(self) -> list[RuleCall]:
        """Every call of a rule inside `f`. Raises what `f` raises."""
        return [rule for rule in map(rule_of, equations(self.program)) if rule is not None]

    @functools.cached_property
    def rules(self) -> list[RuleCall]:
        """The rules that truth leaves out, so that they are judged."""
        stripped = Plain(jvp=True, library=self.subject.library)
        return [rule for rule in self.staged if stripped.drops(rule.eqn)]

    @property
    def about(self) -> str:
        """The rules that are judged, where none of them is a user's."""
        applied = () if self.rules else remaining_rules(self.subject.f, *self.subject.args)
        return described(self.staged, self.rules, applied)

    @functools.cached_property
    def method_cases(self) -> list[MethodCase]:
        """The calls of rules that have methods to be checked one by one."""
        return method_cases.found(self.subject.f, self.flat, self.diff, self.rest, self.rules, self.tolerance)

    def lacked(self, error: Exception) -> str:
        """Return the line that says which method a rule lacks, where JAX raised `error` because of that; else ""."""
        return methods.lacked([rule.rule for rule in self.rules], error)

    def at_most(self, n: int) -> int:
        """Number of like variants to try, of `n`: a quarter for a function of many rules, each to be checked by itself.

        Every variant compiles the whole function again: two of a long one.
        """
        if self.long:
            return min(n, 2)
        return n if len(self.rules) <= MANY else max(2, n // 4)

    @functools.cached_property
    def long(self) -> bool:
        """True for a rule that takes seconds to compile."""
        if not self.jitted:
            return False
        program = self.rule.trace(self.diff, self.rest, self.cotangent(0)).jaxpr
        return sum(1 for _ in equations(program)) > LONG

    @functools.cached_property
    def outputs(self) -> list[jax.ShapeDtypeStruct]:
        """The types of the float outputs. Raises what `f` raises."""
        return jax.eval_shape(self.flat, self.diff, self.rest)[0]

    def drawn(self, draw: int) -> Leaves:
        """Random cotangents of the float outputs, in the outputs' own dtypes."""
        return draws_like(generator(self.seed, draw, 0), self.outputs)

    def cotangent(self, draw: int) -> list[jax.Array]:
        """The same on the device, sharded as the outputs are."""
        return [self._placed(c, a) for c, a in zip(self.drawn(draw), self.outputs, strict=True)]

    def _placed(self, x: np.ndarray, aval: Any) -> jax.Array:
        """`x` on the mesh of the arguments, where the type of the output names a sharding over explicit axes."""
        spec = getattr(getattr(aval, "sharding", None), "spec", None)
        meshes = (getattr(getattr(leaf, "sharding", None), "mesh", None) for leaf in (*self.diff, *self.rest))
        mesh = next((m for m in meshes if m is not None), None)
        if mesh is None or not spec or not any(spec):
            return jax.device_put(x)
        return jax.device_put(x, NamedSharding(mesh, spec))

    @functools.cached_property
    def rule(self) -> Callable:
        """`(floats, others, cotangents) → (outputs, cotangents)` by the rules, compiled at the given dtypes."""
        return jax.jit(pullback(self.flat))

    def run_eagerly(self, own: tuple) -> None:
        """Call the rule without jit from now on. Raises what it raises then."""
        eager = pullback(self.flat)
        eager(*own)
        self.jitted, self.rule = False, eager

    @functools.cached_property
    def primal(self) -> Callable:
        """`(floats, others) → outputs` of the function itself, compiled at the given dtypes."""
        return scaffold(lambda diff, rest: self.flat(diff, rest)[0])

    @functools.cached_property
    def allowed_values(self) -> list[float]:
        """Allowed relative distance of `_fwd`'s outputs from the function's own."""
        lengths = reductions(self.primal.trace(self.diff, self.rest).jaxpr)
        return [max(2 * allowance(y.dtype, n), self.tolerance) for y, n in zip(self.outputs, lengths, strict=True)]

    @functools.cached_property
    def autodiff(self) -> Callable | None:
        """The same by autodiff of the plain forward; None where it has no reverse mode."""
        return scaffold(pullback(self.plain)) if self.lane.oracle.program else None

    def _lane(self, own: bool, held: bool | None = None) -> Lane:
        held = self.held if held is None else held
        if (own, held) not in self.lanes:
            given = self.plain, self.subject, self.drawn, self.draws, self.seed
            self.lanes[own, held] = Lane(*given, own, self.reference_name, held, self.reference_vjp)
        return self.lanes[own, held]

    @functools.cached_property
    def held(self) -> bool:
        """True where truth holds constant what `stop_gradient` returns, as autodiff does.

        Outside of rules it states an intention. Inside the forward of one it does not change the function, of which the
        rule is the derivative, unless a reference says otherwise.
        """
        if self.reference_name:
            return True
        if not any(eqn.primitive.name == STOP_GRADIENT for eqn, _ in located(self.program, lambda e: not rule_of(e))):
            return False
        free = self._lane(self.narrow, held=False)
        if not free.exact.whole:
            return True
        got = _host(self.rule(self.diff, self.rest, self.cotangent(0))[1])
        apart = [
            max(difference(g, t, np.isnan(t)).error for g, t in zip(got, lane.drawn_truth(0, self.diff), strict=True))
            for lane in (free, self._lane(self.narrow, held=True))
        ]
        return apart[1] < apart[0]

    @functools.cached_property
    def own(self) -> Lane:
        """Truth for the rule at its own dtypes. Random floats of another dtype would be other numbers."""
        own = self._lane(own=self.narrow)
        exact = own.exact.whole and not (self.narrow and own.converges)
        return own if exact or any(map(_is_random, equations(self.program))) else self.lane

    @functools.cached_property
    def lane(self) -> Lane:
        """Truth for the rule in float64: of the trace in which the two agree better."""
        wide = self._lane(own=False)
        if not (self.jitted and self.narrow) or self.reference_vjp is not None:
            return wide
        program = self._traced(wide)
        if not _depends_on_dtypes(program):
            return wide
        if (error := self._apart(wide, program)) <= SAME:
            return wide
        own = self._lane(own=True)
        return own if self._apart(own, self._traced(own)) < error / 8 else wide

    @functools.cached_property
    def one_trace(self) -> bool:
        """True where the truth of both traces is the same, so that one of them is enough."""
        if self.own is self.lane:
            return True
        pairs = zip(*(lane.drawn_truth(0, self.diff) for lane in (self.own, self.lane)), strict=True)
        return all(difference(a, b, np.isnan(a) & np.isnan(b)).error <= SAME for a, b in pairs)

    def _traced(self, lane: Lane) -> Float64Program:
        """The rules under a lane's trace, evaluated in float64."""
        return Float64Program(pullback(self.flat), self.diff, self.rest, self.drawn(0), own=lane.own)

    def _apart(self, lane: Lane, program: Float64Program) -> float:
        """The largest relative difference of the rule in float64 from the truth, at the first draw."""
        got = lane.measure(program(self.diff, self.rest, self.drawn(0))[1])
        truth = lane.drawn_truth(0, self.diff)
        return max((difference(g, t, np.isnan(t)).error for g, t in zip(got, truth, strict=True)), default=0.0)

    @functools.cached_property
    def rule_wide(self) -> "Float64Program | EagerFloat64Program":
        """The rules themselves evaluated in float64: their mathematics without their rounding."""
        return self._traced(self.lane) if self.jitted else EagerFloat64Program(pullback(self.flat))

    @functools.cached_property
    def allowed(self) -> list[float]:
        """The allowance of each differentiated leaf in its own dtype."""
        program = self.autodiff or self.rule
        if not (self.jitted or self.autodiff):
            return [max(allowance(x.dtype, x.size), self.tolerance) for x in self.diff]
        traced = program.trace(self.diff, self.rest, self.cotangent(0)).jaxpr
        return self._allowed(traced, [x.dtype for x in self.diff])

    @functools.cached_property
    def allowed_wide(self) -> list[float]:
        """The same in float64; in the leaf's own dtype where a part of a program could not be widened."""
        programs = [p for p in (self.lane.oracle.program, self.rule_wide) if isinstance(p, Float64Program)]
        if not programs:
            return self.allowed
        judged = [p for p in programs if p is self.rule_wide] if self.lane.exact.whole else programs
        if self.limits or any(p.own_types and not self.lane.own for p in judged):
            return self.allowed
        traced = programs[0].traced(self.diff, self.rest, self.drawn(0))
        return self._allowed(traced, [to_wide(x).dtype for x in self.diff])

    @functools.cached_property
    def narrow(self) -> bool:
        """True if a differentiated leaf is narrower than float64, so that rounding and mathematics can be separated."""
        return any(to_wide(x).dtype != x.dtype for x in self.diff)

    def arguments(self, draw: int) -> list:
        """The differentiated leaves: as given in the first draw, moved by a few units in the last place in the others.

        That makes the rounding errors of the draws independent, and changes nothing else about the arguments.
        """
        if draw == 0:
            return self.diff
        rng = generator(self.seed, abs(draw), 1 if draw > 0 else 11)
        return [jitter(x, rng) for x in self.diff]

    def gradients(self, draw: int) -> "Gradients":
        """The cotangents for one draw at the given dtypes, compiled, and the truth about them."""
        diff, ct, lane = self.arguments(draw), self.cotangent(draw), self.own
        rule = lane.measure(_host(self.rule(diff, self.rest, ct)[1]))
        autodiff = None
        if self.autodiff and (self.narrow or lane.exact.whole):
            autodiff = lane.measure(_host(self.autodiff(diff, self.rest, ct)[1]))
        return Gradients(rule, self._truth(lane, draw, rule, self.allowed), autodiff)

    def mathematics(self, draw: int) -> "Gradients":
        """The cotangents of the rule in float64 for one draw, and the truth about them."""
        cts, lane = self.drawn(draw), self.lane
        rule = lane.measure(self.rule_wide(self.arguments(draw), self.rest, cts)[1])
        truth = self._truth(lane, draw, rule, self.allowed_wide)
        alone = draw == 0 and self.own is not lane  # else `points` settles it
        return Gradients(rule, lane.settled(truth, cts) if alone else truth, None)

    def _truth(self, lane: Lane, draw: int, got: Leaves, allowed: Sequence[float]) -> Leaves:
        """The truth for a draw: after the first, that of float64 autodiff where exact arithmetic would take long.

        Autodiff must be right to half of what is allowed in the first draw, and `got` within the other half of it in
        this one. Else exact arithmetic decides, so that no rule fails without it.
        """
        diff = self.arguments(draw)
        if draw and lane.exact.whole and lane.exact.takes_long(self.draws) and self.lane.oracle.program is not None:
            first, found = (self._autodiff_wide(k) for k in (0, draw))
            truth = lane.drawn_truth(0, self.diff)
            gaps = [
                (difference(f, t, np.isnan(t)).error, difference(g, h, np.isnan(t)).error)
                for f, t, g, h in zip(first, truth, got, found, strict=True)
            ]
            if all(max(pair) <= most / 2 for pair, most in zip(gaps, allowed, strict=True)):
                return found
        return lane.drawn_truth(draw, diff)

    @functools.cached_property
    def _autodiff_wide(self) -> Callable[[int], Leaves]:
        """The cotangents of a draw by autodiff of the plain forward in float64."""
        if self.autodiff and not self.narrow:
            pull = self.autodiff
            return functools.cache(lambda k: _host(pull(self.arguments(k), self.rest, self.cotangent(k))[1]))
        return functools.cache(lambda k: self.lane.oracle.cotangents(self.arguments(k), self.rest, self.drawn(k)))

    @functools.cached_property
    def first(self) -> "Gradients":
        """The cotangents of the first draw."""
        return self.gradients(0)

    @functools.cached_property
    def first_wide(self) -> "Gradients":
        """The gradients of the rule in float64."""
        return self.mathematics(0) if self.narrow else self.first

    @functools.cached_property
    def uncompiled(self) -> "tuple[Leaves, Leaves | None, Leaves] | None":
        """The rule's cotangents for the first draw, those in float64, and the truth, one primitive at a time.

        None where truth is not a program of JAX's.
        """
        if self.lane.oracle.program is None or not self.jitted:
            return None
        wide, own = (self.diff, self.rest, self.drawn(0)), (self.diff, self.rest, self.cotangent(0))
        values = uncompiled(self.rule.trace(*own).jaxpr, *own)
        again = None
        if self.narrow:
            assert isinstance(self.rule_wide, Float64Program)  # the rule can be traced
            again = self.rule_wide.uncompiled(*wide)[1]
        truth = self.points.truth
        if not self.own.exact.whole:
            pairs = zip(self.points.known, self.lane.oracle.program.uncompiled(*wide)[1], truth, strict=True)
            truth = [np.where(known, found, decided) for known, found, decided in pairs]
        return _host(values[len(self.outputs) :]), again, truth

    @functools.cached_property
    def points(self) -> Points:
        """The truth for the first draw, and where the function has no derivative at these arguments."""
        found = self._points()
        return found if self.bound is None else found.bounded(self.bound * max(map(largest, self.drawn(0)), default=1))

    def _points(self) -> Points:
        truth, cts, lane = self.first.truth, self.drawn(0), self.own
        if self.exact_alone or lane.exact.whole or not lane.oracle.entries or self.reference_vjp is not None:
            found = Points(truth, lane.exact, cts, alone=self.exact_alone)
            if self.exact_alone or not found.open or lane.oracle.program is None:
                return found
            truth = lane.oracle.cotangents(self.diff, self.rest, cts)
        else:
            found = None
        got, rng = self.first_wide.got, generator(self.seed, 4)
        sides = kinks(self.diff, lambda diff: lane.oracle.cotangents(diff, self.rest, cts), truth, got, rng)
        if found is None:
            return Points(truth, lane.exact, cts, sides, suspects(truth, got, rng))
        left = set(found.open)
        return found.completed(truth, [{at: s[at] for at in s if (i, at) in left} for i, s in enumerate(sides)])

    def judged(self, truth: Leaves, i: int, draw: int) -> np.ndarray:
        """The truth about leaf `i`, NaN where it has no one number, or where draws after the first cannot tell."""
        known = self.points.known[i] if draw else self.points.skip[i]
        if known is None:
            return truth[i]
        return np.where(known, truth[i], np.nan) if draw else np.where(known, np.nan, truth[i])

    @functools.cached_property
    def own_scale(self) -> list[float]:
        """The function's own scale for each leaf: the largest cotangent times output, by the largest argument."""
        outputs = _host(self.rule(self.diff, self.rest, self.cotangent(0))[0])
        with np.errstate(all="ignore"):
            size = max((largest(c * y) for c, y in zip(self.drawn(0), outputs, strict=True)), default=0.0)
        return [size / (largest(x) or 1.0) for x in map(to_wide, self.diff)]

    def scale(self, i: int, expected: np.ndarray, dtype: Any = None, *, exact: bool = True) -> float:
        """The scale of errors of leaf `i`: its largest expected entry.

        It is the function's own scale where the gradient is so small beside that, in this dtype, that it has no digits.
        Unless `expected` is `exact`, it is rounded as what is compared with it is: both together leave twice as much.
        """
        eps = float(jax.numpy.finfo(dtype or to_wide(self.diff[i]).dtype).eps)
        return scaled(largest(expected), self.own_scale[i], eps if exact else 2 * eps)

    @functools.cached_property
    def spread(self) -> list[np.ndarray]:
        """Relative distance allowed at each entry between two evaluations of the same rule, fused differently.

        Each may err by its allowance, or, where the function is ill-conditioned, by a few times what autodiff does.
        """
        found = self.first.autodiff or self.points.truth
        spread = []
        for i, (got, truth, allowed) in enumerate(zip(found, self.points.truth, self.allowed, strict=True)):
            spread.append(np.minimum(LARGEST, np.maximum(2 * allowed, C * self.rounding(i, got, truth))))
        return spread

    def apart(
        self, i: int, got: np.ndarray, expected: np.ndarray, scale: float | None = None, skip: np.ndarray | None = None
    ) -> tuple[Difference, float]:
        """Return the worst entry of two evaluations of leaf `i` by the rule, fused differently, and its allowance.

        The first draw may be a lucky one for autodiff: where they are further apart than that allows, the others count.
        `scale` is that of `expected` where it is not given; entries in `skip` do not count.
        """
        if scale is None:
            scale = self.scale(i, expected, self.diff[i].dtype, exact=False)
        found, allowed = compared(got, expected, self.spread[i], scale, skip)
        if found.error <= allowed:
            return found, allowed
        return compared(got, expected, np.maximum(self.spread[i], self.spread_of_draws[i]), scale, skip)

    @functools.cached_property
    def spread_of_draws(self) -> list[np.ndarray]:
        """A few times the largest error of autodiff at each entry in the draws after the first."""
        draws = [(self.gradients(k), self.own.drawn_truth(k, self.arguments(k))) for k in range(1, self.draws)]
        found = []
        for i in range(len(self.diff)):
            each = [np.nan_to_num(self.rounding(i, (g.autodiff or truth)[i], truth[i])) for g, truth in draws]
            found.append(np.minimum(LARGEST, C * np.max(each or [0.0], axis=0)))
        return found

    def rounding(self, i: int, autodiff: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """The relative error of autodiff at each entry of leaf `i`, 0 where it is too large to be rounding.

        An entry that is small beside the function's own value may have no digits: there its last place counts.
        """
        gap, dtype = errors(autodiff, truth), self.diff[i].dtype
        last = C * float(jax.numpy.finfo(dtype).eps) * self.own_scale[i] * max(1.0, largest(to_wide(self.diff[i])))
        with np.errstate(invalid="ignore"):
            return np.where(gap <= np.maximum(LARGEST * np.abs(truth), last), gap, 0.0) / self.scale(i, truth, dtype)

    @functools.cached_property
    def rounding_wide(self) -> Leaves:
        """The error of autodiff in float64 at each entry for the first draw."""
        return self.errors_wide(self.first_wide.truth, self.diff, self.drawn(0))

    def errors_wide(self, truth: Leaves, diff: Sequence, cts: Leaves) -> Leaves:
        """The error of autodiff in float64 at each entry; 0 where it is itself the truth, or not finite."""
        if not self.lane.exact.whole or self.lane.oracle.program is None:
            return [np.zeros(t.shape) for t in truth]
        found = self.lane.oracle.cotangents(diff, self.rest, cts)
        gaps = [errors(f, t) for f, t in zip(found, truth, strict=True)]
        return [np.where(np.isfinite(g), g, 0.0) for g in gaps]

    @functools.cached_property
    def near(self) -> list[tuple[list, Leaves]]:
        """Neighbours of the arguments in float64, each with the truth there."""
        rng = generator(self.seed, 3)
        wide = [to_wide(x) for x in self.diff]
        with jax.enable_x64(True):
            neighbours = [[jitter(x, rng) for x in wide] for _ in range(NEIGHBOURS)]
        return [(diff, self.lane.truth(diff, self.drawn(0))) for diff in neighbours]

    @functools.cached_property
    def conditioning(self) -> Leaves:
        """Movement of the truth at each entry when the arguments move to their neighbours in their own dtypes."""
        moved = [self.own.truth(self.arguments(-k), self.drawn(0)) for k in range(1, 1 + NEIGHBOURS)]
        return self._moved(self.points.truth, moved)

    @functools.cached_property
    def noise(self) -> Leaves:
        """The same in float64."""
        if not self.narrow:
            return self.conditioning
        return self._moved(self.first_wide.truth, [truth for _, truth in self.near])

    def _moved(self, truth: Leaves, moved: Sequence[Leaves]) -> Leaves:
        """The largest distance, entry by entry, of the truth at other arguments from that at the given ones."""
        return [np.where(known, d, 0.0) for known, d in zip(self.points.known, moved_by(moved, truth), strict=True)]

    @functools.cached_property
    def limits(self) -> list[str]:
        """Places where truth, or the rule in float64, could not be evaluated in float64."""
        return [*dict.fromkeys((*self.lane.limits, *self.rule_wide.limits))]

    def _allowed(self, program: Any, dtypes: list) -> list[float]:
        lengths = reductions(program)[-len(dtypes) :]
        return [max(allowance(dtype, n), self.tolerance) for dtype, n in zip(dtypes, lengths, strict=True)]


class EagerFloat64Program:
    """A rule that cannot be traced, called at float64."""

    limits: Sequence[str] = ()

    def __init__(self, pull: Callable) -> None:
        self.pull = pull

    def __call__(self, *args: Any) -> Any:
        """The outputs and cotangents as NumPy arrays in float64."""
        return eagerly(self.pull, *args)


def _depends_on_dtypes(program: Float64Program) -> bool:
    """True where a program traced at float64 names a narrower float or draws bits: at other dtypes it is another."""
    return any(
        _is_random(eqn) or any(is_narrow(v.aval) for v in eqn.outvars) for eqn in equations(program.program.program)
    )


def _is_random(eqn: JaxprEqn) -> bool:
    return eqn.primitive.name in ("random_bits", "rng_bit_generator", "rng_uniform")


def _host(leaves: list) -> Leaves:
    return [to_wide(x) for x in leaves]
