"""Every mutant of a rule put before the verifier: which are caught, which change nothing, which survive."""

from typing import Any

import jax

from refgrad.verify.case import PRECISION, FunctionCase
from refgrad.verify.mutants import equivalent, mutants
from refgrad.verify.properties import PROPERTIES
from refgrad.verify.properties.accuracy import accuracy
from refgrad.verify.subject import Subject

CAUGHT, EQUIVALENT, SURVIVED = "caught", "equivalent", "survived"


def mutation_score(f: Any, *args: Any, draws: int = 2, seed: int = 0) -> dict[str, str]:
    """Judge each mutant of `f` by `check`'s properties, to measure the check itself.

    The truth is found and compiled once for all of them: only the rule differs.

    Args:
      f: a function with a rule, as for `mutants`.
      *args: its arguments.
      draws: the number of cotangents drawn.
      seed: seed of the cotangents.

    Returns:
      A verdict for each mutant by its name: "caught" by its property, "equivalent" or "survived".

    Raises:
      TypeError: as `mutants` does.
      ValueError: where the right rule itself is not accepted, since nothing could then be said of the wrong ones.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from refgrad.verify import mutation_score
      >>> square = jax.custom_vjp(lambda x: x * x)
      >>> square.defvjp(lambda x: (x * x, x), lambda x, dy: (2 * x * dy,))
      >>> set(mutation_score(square, jnp.ones(3)).values())
      {'caught'}
    """
    subject = Subject.of(f, args)
    case = FunctionCase(subject, draws=draws, seed=seed, order=1)
    found = {}
    with jax.default_matmul_precision(PRECISION):
        if wrong := [row for row in accuracy(case) if row.failed]:
            raise ValueError(f"the rule of {subject.title} itself fails ({wrong[0].cells()}): correct it first")
        for mutant in mutants(f, *args):
            if any(row.failed for row in PROPERTIES[mutant.property](case.variant(mutant.function))):
                found[mutant.name] = CAUGHT
            else:
                found[mutant.name] = EQUIVALENT if equivalent(mutant, f, *args, seed=seed) else SURVIVED
    return found
