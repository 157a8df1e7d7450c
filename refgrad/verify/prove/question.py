"""The programs of a forward and of its rules, run on the symbols of a point: what a proof is about."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flint import arb
from jax.extend.core import ClosedJaxpr

from refgrad.jaxpr.avals import shape_of
from refgrad.jaxpr.programs import equations
from refgrad.jaxpr.rules import RuleCall, rule_of
from refgrad.verify.exact.arrays import Array, full, pull_back
from refgrad.verify.exact.evaluate import lift
from refgrad.verify.exact.scalars.germ import Undecided
from refgrad.verify.numbers import draws_like, generator
from refgrad.verify.prove.branches import SEED
from refgrad.verify.prove.constants import ClosedForm
from refgrad.verify.prove.elements import TooLarge
from refgrad.verify.prove.evaluate import Concolic
from refgrad.verify.prove.proof import LARGE, Counterexample, ProofVerdict
from refgrad.verify.prove.symbol import ConcolicRun, Symbol
from refgrad.verify.subject import Subject, pullback

Place = tuple[int, tuple[int, ...]]
"""An entry: the number of the output or, after them, of the cotangent; its index."""


@dataclasses.dataclass(frozen=True)
class Question:
    """The programs of a forward and of its pullback by the rules, at shapes in float64, and where they are asked."""

    subject: Subject
    forward: ClosedJaxpr
    backward: ClosedJaxpr
    outputs: list
    rules: list[RuleCall]

    @classmethod
    def of(cls, f: Callable, args: tuple) -> "Question":
        """Trace both programs. Raises TypeError and ValueError as `prove` does."""
        given = Subject.of(f, args)
        for name, x in zip(given.arguments, given.diff, strict=True):
            if np.isnan(np.asarray(x)).any():
                raise ValueError(f"{name} holds NaN: no function has a derivative there")
            if jnp.issubdtype(x.dtype, jnp.complexfloating):
                raise TypeError(f"{name} is complex: a proof is about real arguments")
        with jax.enable_x64(True):
            wide = [jnp.asarray(np.asarray(x).astype(np.float64)) for x in given.diff]
            subject = Subject.of(f, given.args_with(wide, given.rest))
            flat = subject.flat()
            forward, shapes = jax.make_jaxpr(flat, return_shape=True)(subject.diff, subject.rest)
            found = (rule_of(eqn) for eqn in equations(forward))
            rules = [rule for rule in found if rule is not None and not rule.of_jax]
            if not rules:
                raise TypeError(f"{given.title} has no backward rule inside: there is nothing to prove")
            outputs = list(shapes[0])
            cotangents = [np.zeros(s.shape) for s in outputs]
            backward = jax.make_jaxpr(pullback(flat))(subject.diff, subject.rest, cotangents)
        return cls(subject, forward, backward, outputs, rules)

    @property
    def given(self) -> list[np.ndarray]:
        """The differentiated arguments."""
        return [np.asarray(x, np.float64) for x in self.subject.diff]

    @property
    def size(self) -> int:
        """The number of scalars that both programs make, loops counted once."""
        made = (v for program in (self.forward, self.backward) for eqn in equations(program) for v in eqn.outvars)
        return sum(math.prod(shape_of(v)) for v in made)

    @property
    def entries(self) -> int:
        """The number of entries of outputs and cotangents."""
        return sum(math.prod(x.shape) for x in (*self.outputs, *self.subject.diff))

    def cotangents(self) -> list[np.ndarray]:
        """Return the cotangents of the outputs, the same at every point."""
        return draws_like(generator(SEED, 1), [jax.ShapeDtypeStruct(s.shape, np.float64) for s in self.outputs])

    @property
    def where(self) -> tuple[str, ...]:
        """`file:line` of each backward rule."""
        return tuple(dict.fromkeys(rule.location for rule in self.rules if rule.location))

    def sides(self, arguments: list[np.ndarray], identified: Mapping[float, ClosedForm]) -> "Sides":
        """Run the forward with its derivative, and the rules, on the symbols of one point."""
        run = ConcolicRun()
        evaluator = Concolic(run, identified)
        cts = self.cotangents()
        xs = [_symbols(run, n, x) for n, x in zip(self.subject.arguments, arguments, strict=True)]
        gs = [_symbols(run, f"cotangent {i}", c) for i, c in enumerate(cts)]
        rest = [lift(x) for x in self.subject.rest]
        leaves = [Array.leaf(x) for x in xs]
        values = evaluator.run(self.forward, [*leaves, *rest])[: len(self.outputs)]
        truth = [y.data for y in values] + pull_back(values, gs, leaves)
        made = evaluator.run(self.backward, [*map(Array, xs), *rest, *map(Array, gs)])
        return Sides(run, truth, [y.data for y in made], evaluator.constants, cts)

    def counterexample(self, sides: "Sides", at: Place, arguments: list[np.ndarray]) -> Counterexample:
        """Return an entry at which both sides differ."""
        leaf, index = at
        got, truth = (_ball(side[leaf][index]) for side in (sides.rule, sides.truth))
        return self.example(at, got, truth, arguments, sides.cotangents)

    def example(self, at: Place, got: arb, truth: arb, arguments: list, cotangents: list) -> Counterexample:
        """Return an entry with the values of both sides, and the arguments."""
        outputs = [f"output {i}" if len(self.outputs) > 1 else "output" for i in range(len(self.outputs))]
        names = [*outputs, *(f"cotangent of {n}" for n in self.subject.arguments)]
        values = {n: x.tolist() for n, x in zip(self.subject.arguments, arguments, strict=True)}
        left, right = got.str(20, radius=False), truth.str(20, radius=False)
        return Counterexample(names[at[0]], at[1], left, right, values, [c.tolist() for c in cotangents])


@dataclasses.dataclass(frozen=True)
class Sides:
    """Truth and rule at one point: outputs, then cotangents, as arrays of scalars."""

    run: ConcolicRun
    truth: list[np.ndarray]
    rule: list[np.ndarray]
    constants: dict[float, float]
    cotangents: list[np.ndarray]

    @property
    def entries(self) -> int:
        """The number of entries of one side."""
        return sum(x.size for x in self.truth)

    def places(self) -> Iterator[tuple[Place, Any, Any]]:
        """Yield each entry of both sides."""
        for leaf, (truth, rule) in enumerate(zip(self.truth, self.rule, strict=True)):
            for index in np.ndindex(truth.shape):
                yield (leaf, index), truth[index], rule[index]

    def apart(self) -> Iterator[Place]:
        """Yield the entries at which the balls of both sides differ."""
        for place, truth, rule in self.places():
            if not isinstance(truth, Undecided) and not isinstance(rule, Undecided):
                a, b = _ball(truth), _ball(rule)
                if a.is_finite() != b.is_finite() or (a.is_finite() and not (a - b).contains(0)):
                    yield place

    def largest_gap(self) -> float:
        """Return the largest relative difference of the balls of an entry; 0 where none differs."""
        gaps = [0.0]
        for leaf, index in self.apart():
            truth, rule = (float(_ball(side[leaf][index]).mid()) for side in (self.truth, self.rule))
            difference = float((_ball(self.rule[leaf][index]) - _ball(self.truth[leaf][index])).mid())
            finite = truth and math.isfinite(truth) and math.isfinite(rule)
            gaps.append(abs(difference / truth) if finite else math.inf)
        return max(gaps)

    def verdict(self) -> tuple[ProofVerdict, str]:
        """Return the verdict on entries that agree at this point, and its reason."""
        if self.run.assumed:
            return ProofVerdict.TESTED, LARGE
        for _, truth, rule in self.places():
            for x in (truth, rule):
                if isinstance(x, Undecided):
                    return ProofVerdict.UNDECIDED, x.why
            if truth is rule:
                continue
            if any(isinstance(x, arb) and not x.is_finite() for x in (truth, rule)):
                if isinstance(truth, arb) and isinstance(rule, arb) and truth == rule:
                    continue
                return ProofVerdict.UNDECIDED, "truth is not finite"
            a, b = (x if isinstance(x, Symbol) else self.run.constant(x.fmpq()) for x in (truth, rule))
            try:
                if not self.run.same(a, b):
                    return ProofVerdict.TESTED, "equal here, by no relation that is known"
            except TooLarge:
                return ProofVerdict.TESTED, LARGE
        return ProofVerdict.PROVEN, ""


def _symbols(run: ConcolicRun, name: str, x: np.ndarray) -> np.ndarray:
    out = full(x.shape)
    for index in np.ndindex(x.shape):
        out[index] = run.variable(name, arb(float(x[index])).fmpq()) if np.isfinite(x[index]) else arb(float(x[index]))
    return out


def _ball(x: Any) -> arb:
    return x.ball if isinstance(x, Symbol) else x
