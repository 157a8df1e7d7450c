"""One rule at one signature, and the values of a call of it."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from refgrad.jaxpr.avals import is_float
from refgrad.verify.record.identity import Identity

TRIES = 4  # deliveries after which the values at hand are kept, whatever they are


class Key(NamedTuple):
    """The data of a typed PRNG key, which a callback cannot carry."""

    data: Any
    impl: Any


@dataclasses.dataclass(eq=False)
class RecordedRule:
    """A rule at a signature: how often Python called it, and the arguments of one of the calls.

    Attributes:
      key: the same text for the same rule and signature in every process.
      identity: the rule's name, its place and what tells it from others.
      signature: types of the arrays, static values.
      rule: the rule; None where it cannot be kept.
      tree: the structure of the arguments.
      x64: True where 64-bit types were on.
      calls: the number of calls.
      obstacle: the reason for which it cannot be checked.
      leaves: the leaves of the arguments; None where no values have arrived.
      grade: how good these values are; −1 for none.
      tries: the number of calls whose values were looked at.

    Example:
      >>> import jax
      >>> from refgrad.verify import record
      >>> square = jax.custom_vjp(lambda x: x * x)
      >>> square.defvjp(lambda x: (x * x, x), lambda x, dy: (2 * x * dy,))
      >>> with record() as seen:
      ...     _ = jax.grad(square)(3.0)
      >>> seen[0].name, seen[0].calls, seen[0].args[0].item()
      ('<lambda>', 1, 3.0)
    """

    key: str
    identity: Identity
    signature: str
    rule: Callable | None
    tree: Any
    x64: bool
    calls: int = 0
    obstacle: str = ""
    leaves: list[Any] | None = None
    grade: int = -1
    tries: int = 0

    @property
    def name(self) -> str:
        """The name of the user's function, or of a HiPrim's class."""
        return self.identity.name

    @property
    def where(self) -> str:
        """`file:line` of the user's function."""
        return self.identity.place

    @property
    def args(self) -> tuple | None:
        """The positional arguments, static ones included; None where no values have arrived."""
        if self.leaves is None:
            return None
        leaves = [jax.random.wrap_key_data(x.data, impl=x.impl) if isinstance(x, Key) else x for x in self.leaves]
        return jax.tree.unflatten(self.tree, leaves)

    @property
    def awaits(self) -> bool:
        """True as long as values are looked for."""
        return not self.obstacle and self.grade < 2 and self.tries < TRIES

    def keep(self, leaves: Sequence[Any]) -> None:
        """Keep these values where they are better than those recorded."""
        self.tries += 1
        if (grade := _grade(leaves)) > self.grade:
            self.leaves, self.grade = list(leaves), grade


def _grade(leaves: Sequence[Any]) -> int:
    """Return 0 for values that are not finite, 1 for the same number everywhere or zeros alone, 2 for any other."""
    floats = [x if isinstance(x, np.ndarray) else np.asarray(x) for x in leaves if is_float(x)]
    floats = [x if x.dtype.kind in "fc" else x.astype(np.float32) for x in floats if x.size]
    if not all(np.isfinite(x).all() for x in floats):
        return 0
    return 2 if not floats or any(np.any(x != x.flat[0]) if x.size > 1 else x.any() for x in floats) else 1
