"""The meaning of a rule: the derivative of its plain forward, or what its author says is meant instead."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax

from refgrad.jaxpr.avals import is_float
from refgrad.verify.intents import Intent, Pull, known_intent
from refgrad.verify.rules import without_rules
from refgrad.verify.subject import Flat, Subject


@dataclasses.dataclass(frozen=True)
class Meaning:
    """The derivative of `plain`, unless its `cotangents` are given; above `bound`, any number below it."""

    plain: Flat
    cotangents: Pull | None = None
    name: str = ""  # what stands in for the plain forward, empty where nothing does
    bound: float | None = None
    held: bool = False  # whether what `stop_gradient` returns is constant, as it is in a reference

    @classmethod
    def of(
        cls,
        subject: Subject,
        reference: Callable | None = None,
        reference_vjp: Callable | None = None,
        intent: Intent | None = None,
    ) -> "Meaning":
        """Return what is meant by at most one of the three.

        Raises ValueError where more than one is given, or `intent` is not an intention.
        """
        given = {"reference": reference, "reference_vjp": reference_vjp, "intent": intent}
        if len(named := [name for name, value in given.items() if value is not None]) > 1:
            raise ValueError(f"{' and '.join(named)} each say what is meant: give one of them")
        plain = without_rules(subject.flat(reference), jvp=True, library=subject.library and reference is None)
        meaning = cls(plain, name="the reference" if reference else "", held=reference is not None)
        if reference_vjp is not None:
            pull = functools.partial(_given, subject, reference_vjp)
            return dataclasses.replace(meaning, cotangents=pull, name="those of reference_vjp(cotangent, *args)")
        if known_intent(intent) is not None:
            meaning = meaning.under(intent)
            jax.eval_shape(meaning.plain, subject.diff, subject.rest)  # an intention may not fit the shapes
        return meaning

    def under(self, intent: Intent | None) -> "Meaning":
        """Return the same changed by an intention, if there is one."""
        if intent is None:
            return self
        plain = intent.reference(self.plain) if intent.reference else self.plain
        pull = intent.cotangents(self.plain) if intent.cotangents else None
        what = "cotangents" if pull else "reference" if intent.reference else ""
        name = f"the {what} of intent={intent}" if what else ""
        return Meaning(plain, pull, name, intent.bound, held=bool(name))


def _given(subject: Subject, reference_vjp: Callable, diff: Sequence, rest: Sequence, cts: Sequence) -> list:
    """The cotangents that `reference_vjp(cotangent, *args)` gives."""
    shapes = jax.eval_shape(subject.f, *subject.args_with(subject.diff, rest))
    floats = iter(cts)
    ct = jax.tree.map(lambda x: next(floats) if is_float(x) else None, shapes)
    return subject.pick(reference_vjp(ct, *subject.args_with(diff, rest)), diff)
