"""Wrong versions of a rule written as HiPrim: a new class for each, since JAX does not see a method that changes."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import JaxprEqn

from refgrad.jaxpr.avals import is_float
from refgrad.jaxpr.hiprim import prim_of
from refgrad.jaxpr.interpret import Interpreter
from refgrad.jaxpr.methods import HiPrim, frozen, has, is_symbolic, value_accum
from refgrad.jaxpr.programs import equations, inside, trace
from refgrad.jaxpr.rules import HI, rule_of
from refgrad.verify.edits import Edit, cotangent_edits, dense, least, swap
from refgrad.verify.method_case import MethodCase
from refgrad.verify.method_cases import found, names_of
from refgrad.verify.mutant import Mutant
from refgrad.verify.subject import Subject

# methods whose results are scaled: which part of them, and the property that is to catch it
SCALED = (("vjp_fwd", 0, "vjp"), ("jvp", 1, "jvp"), ("lin", 0, "lin"), ("linearized", None, "lin"))


def hiprim_mutants(f: Callable, args: tuple) -> list[Mutant]:
    """The mutants of each HiPrim that `f` calls; nothing where it calls none."""
    if HiPrim is None:
        return []
    subject = Subject.of(f, args)
    program = jax.make_jaxpr(subject.flat())(subject.diff, subject.rest)
    rules = [rule for rule in map(rule_of, equations(program)) if rule is not None and rule.kind == HI]
    rules = [rule for rule in rules if not rule.of_jax]
    prims = {type(rule.rule): rule.rule for rule in reversed(rules)}
    cases = {case.name: case for case in found(f, subject.flat(), subject.diff, subject.rest, rules, tolerance=0.0)}
    mutants = []
    for kind, prim in prims.items():
        for mutant in _of_prim(prim, cases[kind.__name__]):
            name = mutant.name if len(prims) == 1 else f"{kind.__name__}.{mutant.name}"
            mutants.append(Mutant(name, _replaced(f, kind, mutant.function), mutant.property))
    return mutants


def _of_prim(prim: Any, case: MethodCase) -> list[Mutant]:
    """The classes of the mutants of one HiPrim, in the place of their functions."""
    kind = type(prim)
    leaves = [i for i, aval in enumerate(prim.in_avals_flat) if is_float(aval)]
    names = names_of(prim)
    mutants = []
    for i, leaf, length in zip(leaves, case.diff, case.lengths[1], strict=True):
        if not has(prim, "vjp_fwd"):
            break
        edits = dict(cotangent_edits(leaf, length, case.outputs))
        for j, other in zip(leaves, case.diff, strict=True):
            if j != i and jax.typeof(other) == jax.typeof(leaf):
                edits[f"swapped with {names[j]}"] = swap(j)
        mutants += [Mutant(f"{names[i]}: {k}", _class(kind, vjp_bwd=_edited(kind, i, e))) for k, e in edits.items()]
    small = max(least(a.dtype, n) for a, n in zip(case.outputs, case.lengths[0], strict=True)) * 2
    for method, place, property in SCALED:
        if has(prim, method):
            changes = {f"scaled by 1 + {small:.2g}": 1 + small, "negated": -1}
            mutants += [
                Mutant(f"{method}: {name}", _class(kind, **{method: _scaled(kind, method, place, by)}), property)
                for name, by in changes.items()
            ]
    return mutants


def _class(kind: type, **methods: Callable) -> type:
    """A subclass with other methods."""
    return type(kind.__name__, (kind,), methods)


def _edited(kind: Any, i: int, edit: Edit) -> Callable:
    """`vjp_bwd` with the cotangent of leaf `i` edited."""

    def vjp_bwd(self, *given):
        arguments = len(self.in_avals)
        *residuals, ct = given[: len(given) - arguments]
        accums = jax.tree.leaves(given[len(given) - arguments :])

        def cotangents(upstream):
            own = [value_accum(aval) for aval in self.in_avals_flat]
            _as(kind, self).vjp_bwd(*residuals, upstream, *jax.tree.unflatten(self.in_tree, own))
            return [frozen(accum) for accum in own]

        def again(change: Callable | None, leaf: int = i):
            upstream = ct if change is None else jax.tree.map(dense(change), ct, is_leaf=is_symbolic)
            return cotangents(upstream)[leaf]

        for j, (accum, own) in enumerate(zip(accums, cotangents(ct), strict=True)):
            if own is not None:
                accum.accum(edit(own, again) if j == i else own)

    return vjp_bwd


def _scaled(kind: Any, method: str, place: int | None, by: float) -> Callable:
    """A method whose values or tangents, the part of its result at `place`, are scaled."""

    def scaled(self, *given):
        result = getattr(_as(kind, self), method)(*given)
        part = result if place is None else result[place]
        part = jax.tree.map(lambda x: x * by if is_float(x) else x, part, is_leaf=is_symbolic)
        return part if place is None else (*result[:place], part, *result[place + 1 :])

    return scaled


def _as(kind: type, prim: Any) -> Any:
    """The same object of another class."""
    other = copy.copy(prim)
    other.__class__ = kind
    return other


def _replaced(f: Callable, kind: type, mutant: type) -> Callable:
    """`f` with every object of class `kind` in its program made one of class `mutant`."""

    def replaced(*args, **kwargs):
        program, arrays, tree = trace(f, args, kwargs)
        return jax.tree.unflatten(tree, _Replacing(kind, mutant).run(program, arrays))

    return replaced


class _Replacing(Interpreter):
    """Interpreter that runs a program with objects of another class."""

    def __init__(self, kind: type, mutant: type) -> None:
        super().__init__()
        self.kind, self.mutant = kind, mutant

    def equation(self, eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
        """Bind the equation with the other object, or run what holds one."""
        if self.is_meant(eqn):
            return self.bind(eqn, values, _prim=_as(self.mutant, prim_of(eqn)))
        return self.descend(eqn, values) if any(map(self.is_meant, inside(eqn))) else self.bind(eqn, values)

    def is_meant(self, eqn: JaxprEqn) -> bool:
        """Return True for a call of an object of the class to be replaced."""
        return type(prim_of(eqn)) is self.kind
