"""One wrong version of a rule."""

from typing import Any, NamedTuple


class Mutant(NamedTuple):
    """One wrong version of a right rule.

    Attributes:
      name: the argument and the fault, as in "w: negated".
      function: the wrong version, called as the original is.
      property: the property that is to catch it.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from refgrad.verify import mutants
      >>> square = jax.custom_vjp(lambda x: x * x)
      >>> square.defvjp(lambda x: (x * x, x), lambda x, dy: (2 * x * dy,))
      >>> mutant = mutants(square, jnp.ones(3))[1]
      >>> mutant.name, jax.grad(mutant.function)(3.0).item()
      ('x: negated', -6.0)
    """

    name: str
    function: Any
    property: str = "accuracy"
