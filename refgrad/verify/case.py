"""One check in progress: the programs that its properties share, each compiled once, and the random draws."""

import copy
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding

from refgrad.jaxpr import methods
from refgrad.jaxpr.avals import is_float
from refgrad.jaxpr.programs import equations
from refgrad.jaxpr.rules import HI, RuleCall, rule_of
from refgrad.jaxpr.uncompiled import uncompiled
from refgrad.verify import method_cases
from refgrad.verify import oracle as oracles
from refgrad.verify.allowance import C, allowance, reductions
from refgrad.verify.kinks import Kinks
from refgrad.verify.method_case import MethodCase
from refgrad.verify.numbers import difference, draws_like, generator, to_wide
from refgrad.verify.oracle import Leaves, Oracle, Wide
from refgrad.verify.rules import without_rules
from refgrad.verify.subject import Flat, Subject, pullback

PRECISION = "highest"  # of every matmul, in the rule and in the oracle alike
UNCERTAIN = 1e-4  # relative: a float64 truth that moves by more is not noise but a jump
MANY = 8  # calls of rules: above that a function is a model
LARGEST = 0.25  # relative difference that is still put down to rounding, whatever the dtype and length


class Gradients(NamedTuple):
    """The cotangents of the differentiated leaves for one draw: by the rules, in truth, by the rules
    in float64, by autodiff.

    The last two are None where the given dtype is float64 already, or there is no autodiff.
    """

    rule: Leaves
    truth: Leaves
    wide: Leaves | None
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
        reference: Callable | None,
        reference_vjp: Callable | None,
    ) -> None:
        self.subject, self.draws, self.seed, self.order = subject, draws, seed, order
        self.diff, self.rest = subject.diff, subject.rest
        self.flat = self._typed(subject.flat())
        self.meant = reference_vjp
        self.excuses = True  # whether a failing rule is tried without the compiler before it is blamed
        self.referred = reference is not None
        self.plain: Flat = without_rules(subject.flat(reference), jvp=True)

    def variant(self, f: Callable) -> "Case":
        """The same case for a function that differs in its rule alone: truth and autodiff are shared."""
        shared = {k: getattr(self, k) for k in ("outputs", "oracle", "autodiff", "allowed", "allowed_wide", "noise")}
        other = copy.copy(self)
        for name, value in vars(type(self)).items():
            if isinstance(value, functools.cached_property):
                other.__dict__.pop(name, None)
        other.__dict__.update(shared)
        other.subject = dataclasses.replace(self.subject, f=f)
        other.flat = other._typed(other.subject.flat())
        other.excuses = False  # the right rule has passed under the same compiler
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
    def rules(self) -> list[RuleCall]:
        """The calls of rules inside `f`, JAX's own functions left out. Raises what `f` raises."""
        program = jax.make_jaxpr(self.flat)(self.diff, self.rest)
        return [rule for rule in map(rule_of, equations(program)) if rule is not None and not rule.of_jax]

    @functools.cached_property
    def method_cases(self) -> list[MethodCase]:
        """The calls of rules that have methods to be checked one by one."""
        return method_cases.found(self.subject.f, self.flat, self.diff, self.rest, self.rules)

    def lacked(self, error: Exception) -> str:
        """Return the line that says which method a rule lacks, where JAX raised `error` because of that; else ""."""
        return methods.lacked([rule.rule for rule in self.rules], error)

    def at_most(self, n: int) -> int:
        """How many of `n` like variants to try: a quarter for a function of many rules, each to be checked by itself.

        Every variant compiles the whole function again.
        """
        return n if len(self.rules) <= MANY else max(2, n // 4)

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
            return jax.numpy.asarray(x)
        return jax.device_put(x, NamedSharding(mesh, spec))

    @functools.cached_property
    def rule(self) -> Callable:
        """`(floats, others, cotangents) → (outputs, cotangents)` by the rules, compiled at the given dtypes."""
        return jax.jit(pullback(self.flat))

    @functools.cached_property
    def autodiff(self) -> Callable | None:
        """The same by autodiff of the plain forward; None where it has no reverse mode."""
        return jax.jit(pullback(self.plain)) if self.oracle.program else None

    @functools.cached_property
    def rule_wide(self) -> Wide:
        """The rules themselves evaluated in float64: their mathematics without their rounding."""
        return Wide(pullback(self.flat), self.diff, self.rest, self.drawn(0))

    @functools.cached_property
    def oracle(self) -> Oracle:
        """Truth; see `oracle.find`."""
        if self.meant is not None:
            return oracles.given(self._meant)
        rng = generator(self.seed, 2)
        found = oracles.find(self.plain, self.diff, self.rest, self.drawn(0), rng)
        if self.referred:
            found.kind = found.kind.replace("the plain forward", "the reference")
        return found

    @functools.cached_property
    def allowed(self) -> list[float]:
        """The allowance of each differentiated leaf in its own dtype."""
        program = self.autodiff or self.rule
        traced = program.trace(self.diff, self.rest, self.cotangent(0)).jaxpr
        return self._allowed(traced, [x.dtype for x in self.diff])

    @functools.cached_property
    def allowed_wide(self) -> list[float]:
        """The same in float64; in the leaf's own dtype where a part of a program could not be widened."""
        programs = [p for p in (self.oracle.program, self.rule_wide) if p]
        if self.limits or any(p.own_types for p in programs):
            return self.allowed
        traced = programs[0].traced(self.diff, self.rest, self.drawn(0))
        return self._allowed(traced, [to_wide(x).dtype for x in self.diff])

    @functools.cached_property
    def narrow(self) -> bool:
        """Whether a differentiated leaf is narrower than float64, so that rounding and mathematics are told apart."""
        return any(to_wide(x).dtype != x.dtype for x in self.diff)

    @functools.cached_property
    def first(self) -> "Gradients":
        """The cotangents of the first draw."""
        return self.gradients(0)

    def arguments(self, draw: int) -> list:
        """The differentiated leaves: as given in the first draw, moved by a few units in the last place in the others.

        That makes the rounding errors of the draws independent, and changes nothing else about the arguments.
        """
        if draw == 0:
            return self.diff
        rng = generator(self.seed, draw, 1)
        return [_jitter(x, rng) for x in self.diff]

    def gradients(self, draw: int) -> "Gradients":
        """Every version of the cotangents for one draw, compiled, as far as the oracle can be compared with."""
        diff, ct, wide = self.arguments(draw), self.cotangent(draw), self.drawn(draw)
        measure = self.oracle.measure
        return Gradients(
            measure(_host(self.rule(diff, self.rest, ct)[1])),
            self.oracle.cotangents(diff, self.rest, wide),
            measure(self.rule_wide(diff, self.rest, wide)[1]) if self.narrow else None,
            measure(_host(self.autodiff(diff, self.rest, ct)[1])) if self.narrow and self.autodiff else None,
        )

    @functools.cached_property
    def uncompiled(self) -> "Gradients | None":
        """The first draw's, one primitive at a time; None where truth is not a program of JAX's."""
        if self.oracle.program is None:
            return None
        wide, own = (self.diff, self.rest, self.drawn(0)), (self.diff, self.rest, self.cotangent(0))
        values = uncompiled(self.rule.trace(*own).jaxpr, *own)
        truth = self.oracle.program.uncompiled(*wide)[1]
        again = self.rule_wide.uncompiled(*wide)[1] if self.narrow else None
        return Gradients(_host(values[len(self.outputs) :]), truth, again, None)

    @functools.cached_property
    def kinks(self) -> Kinks:
        """Where the function has no derivative at these arguments."""
        applies = self.oracle.entries and self.meant is None
        truth = lambda diff: self.oracle.cotangents(diff, self.rest, self.drawn(0))  # noqa: E731
        got = self.first.wide or self.first.rule
        return Kinks(self.diff, truth if applies else None, self.first.truth, got, generator(self.seed, 4))

    @functools.cached_property
    def spread(self) -> list[float]:
        """How far two evaluations of the same rule, fused differently, may be apart, relatively.

        Each may err by its allowance, or, where the function is ill-conditioned, by a few times what autodiff does.
        """
        found = self.first.autodiff or self.first.truth
        errors = [difference(a, t, s).error for a, t, s in zip(found, self.first.truth, self.kinks.skip, strict=True)]
        return [min(LARGEST, max(2 * a, C * e)) for a, e in zip(self.allowed, errors, strict=True)]

    @functools.cached_property
    def noise(self) -> list[float]:
        """How far the float64 truth itself moves, relatively, when its arguments move by a few last places."""
        rng = generator(self.seed, 3)
        ulps = 4 * float(np.finfo(np.float64).eps)
        moved = []
        for _ in range(3):
            diff = [to_wide(x) * (1 + ulps * rng.uniform(-1, 1, np.shape(x))) for x in self.diff]
            moved.append(self.oracle.cotangents(diff, self.rest, self.drawn(0)))
        return [max(difference(m[i], truth).error for m in moved) for i, truth in enumerate(self.first.truth)]

    def uncertainty(self, i: int) -> float:
        """The noise of leaf `i` in the truth, as an allowance: 0 where it is so large that it must be a jump."""
        noise = C * self.noise[i]
        return noise if noise <= UNCERTAIN else 0.0

    @functools.cached_property
    def limits(self) -> list[str]:
        """Where truth, or the rule in float64, could not be evaluated in float64."""
        return [*dict.fromkeys((*self.oracle.limits, *self.rule_wide.limits))]

    def _allowed(self, program: Any, dtypes: list) -> list[float]:
        lengths = reductions(program)[-len(dtypes) :]
        return [allowance(dtype, n) for dtype, n in zip(dtypes, lengths, strict=True)]

    def _meant(self, diff: Sequence, rest: Sequence, cts: Sequence) -> Leaves:
        """The cotangents that `reference_vjp(cotangent, *args)` gives, in float64."""
        shapes = jax.eval_shape(self.subject.f, *self.subject.args_with(self.diff, rest))
        with jax.enable_x64(True):
            wide = [jax.numpy.asarray(to_wide(x)) for x in diff]
            floats = iter(map(to_wide, cts))
            ct = jax.tree.map(lambda x: next(floats) if is_float(x) else None, shapes)
            assert self.meant is not None
            return self.subject.pick(self.meant(ct, *self.subject.args_with(wide, rest)), wide)


def _jitter(x: Any, rng: np.random.Generator) -> jax.Array:
    """`x` with every entry moved by up to four units in the last place, in its own dtype and sharding."""
    factor = 1 + 4 * float(jax.numpy.finfo(x.dtype).eps) * rng.uniform(-1, 1, np.shape(x))
    moved = (to_wide(x) * factor).astype(x.dtype)
    spread = isinstance(x, jax.Array) and len(x.devices()) > 1
    return jax.device_put(moved, x.sharding) if spread else jax.numpy.asarray(moved)


def _host(leaves: list) -> Leaves:
    return [to_wide(x) for x in leaves]
