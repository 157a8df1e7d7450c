"""Wrong versions of a right rule that no test in floating point sees, to measure a proof with."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import JaxprEqn

from refgrad.jaxpr.interpret import Interpreter
from refgrad.jaxpr.programs import holds_programs, trace
from refgrad.jaxpr.versions import custom_vjp, parts_of
from refgrad.verify.mutant import Mutant
from refgrad.verify.mutants import edited
from refgrad.verify.prove.constants import is_plain
from refgrad.verify.subject import Subject, pullback

FACTOR = 1 + 2.0**-40
TWELFTH = 1 + 1e-12


def slight_mutants(f: Any, *args: Any) -> list[Mutant]:
    """Return the rule of a `custom_vjp` function with each cotangent, and each constant, wrong by very little.

    Cotangents are scaled by 1 + 2⁻⁴⁰; scalar constants of many digits that the backward holds are moved in the twelfth.
    Call it, and what it returns, where 64-bit types are on.

    Args:
      f: The function.
      *args: Arguments of it, in float64.

    Returns:
      The mutants, each with a name that says what is wrong.

    Example:
      >>> import jax
      >>> from refgrad import ops
      >>> from refgrad.verify.prove import slight_mutants
      >>> with jax.enable_x64(True):
      ...     print([mutant.name for mutant in slight_mutants(ops.relu, jax.numpy.ones(2))])
      ['x: scaled by 1 + 2^-40']
    """
    subject = Subject.of(f, args)
    mutants = [
        Mutant(f"{subject.names[i]}: scaled by 1 + 2^-40", edited(f, subject, i, lambda g, again: g * FACTOR))
        for i in subject.floats
    ]
    constants = _Moved()
    flat = subject.flat(_with_backward(f, constants))
    outputs = jax.eval_shape(flat, subject.diff, subject.rest)[0]
    jax.eval_shape(pullback(flat), subject.diff, subject.rest, outputs)
    return mutants + [
        Mutant(f"{value!r} moved in the twelfth digit", _with_backward(f, _Moved(value)))
        for value in sorted(constants.seen)
    ]


class _Moved(Interpreter):
    """Interpreter that runs a program with one constant moved; `seen` are those that can be."""

    def __init__(self, target: float | None = None) -> None:
        super().__init__()
        self.target, self.seen = target, set[float]()

    def constant(self, value: Any, aval: Any) -> Any:
        """Return a constant, moved where it is the one meant."""
        if np.shape(value) or not isinstance(value, float | np.floating | np.ndarray | jax.Array):
            return value
        if not np.issubdtype(np.asarray(value).dtype, np.floating) or not np.isfinite(value) or is_plain(float(value)):
            return value
        self.seen.add(float(value))
        return np.asarray(value * TWELFTH, aval.dtype) if float(value) == self.target else value

    def equation(self, eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
        """Evaluate one equation, and the programs that it holds."""
        return self.descend(eqn, values) if holds_programs(eqn) else self.bind(eqn, values)


def _with_backward(f: Any, interpreter: Interpreter) -> Any:
    """Return `f` with its backward run by an interpreter."""
    parts = parts_of(f)
    backward = parts.bwd
    assert backward is not None

    def bwd(*given: Any) -> Any:
        static, arrays = given[: len(given) - 2], given[len(given) - 2 :]
        program, leaves, tree = trace(lambda *moving: backward(*static, *moving), arrays, {})
        return jax.tree.unflatten(tree, interpreter.run(program, leaves))

    mutant = custom_vjp(parts.fun, nondiff_argnums=parts.nondiff_argnums)
    mutant.defvjp(parts.fwd, bwd, symbolic_zeros=parts.symbolic_zeros, optimize_remat=parts.optimize_remat)
    return mutant
