"""A traced program run one primitive at a time: a compiler that fuses wrongly cannot have touched the result."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, JaxprEqn

from refgrad.jaxpr.interpret import Interpreter


class OneByOne(Interpreter):
    """Interpreter that binds each primitive by itself.

    Inner `jit`s dissolve; a loop's body is compiled, since JAX has no other way.
    """

    def equation(self, eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
        """Return the outputs of one equation."""
        if eqn.primitive.name == "jit":
            return self.call(eqn.params["jaxpr"])(*values)
        return self.bind(eqn, values)


def uncompiled(program: ClosedJaxpr, *args: Any) -> list:
    """Return the flat outputs of `program` at the arrays in the pytrees `args`."""
    return OneByOne().run(program, jax.tree.leaves(args))
