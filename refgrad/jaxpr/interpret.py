"""A jaxpr evaluated equation by equation, with every loop, branch and call rebuilt on the way down.

`jax.make_jaxpr` turns a function into a program; an `Interpreter` runs that program again with the public functions
that made it (`lax.scan`, `lax.while_loop`, `jax.checkpoint`, `jax.shard_map`, ...), so its result is traced, mapped
and differentiated as any JAX function is. A subclass says what becomes of one equation: `verify` drops rules,
evaluates in float64, and records what flows through a call.

Inner programs are traced again on the values that reach them, never on shapes and dtypes alone: only so do varying
axes, explicit shardings and weak types survive.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import source_info_util
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from refgrad.jaxpr.calls import rebuilt
from refgrad.jaxpr.versions import closed, opened


class Interpreter:
    """Interpreter of programs as they are. Subclasses override `equation`, and `constant` where values change."""

    def __init__(self) -> None:
        self.x64 = (
            jax.dtypes.canonicalize_dtype(np.float64) == np.float64
        )  # the setting under which the user's own Python code is traced

    def constant(self, value: Any, aval: Any) -> Any:
        """Return the value of a literal or constant of the program."""
        del aval
        return value

    def equation(self, eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
        """Return the outputs of one equation at `values`."""
        return self.bind(eqn, values)

    def type(self, aval: Any) -> Any:
        """Return the type that stands for `aval` when an inner program is traced without values."""
        return aval

    def call(self, program: ClosedJaxpr | Jaxpr) -> Callable[..., list]:
        """Return `program` as a function from its flat inputs to the list of its outputs."""
        return lambda *values: self.run(program, values)

    def run(self, program: ClosedJaxpr | Jaxpr, values: Sequence[Any]) -> list:
        """Return the outputs of a program at `values`, each equation under its own source line, scope and mesh."""
        jaxpr = opened(program)
        consts = (self.constant(c, v.aval) for c, v in zip(closed(program).consts, jaxpr.constvars, strict=True))
        env = dict(zip(jaxpr.constvars, consts, strict=True)) | dict(zip(jaxpr.invars, values, strict=True))

        def read(atom):
            return self.constant(atom.val, atom.aval) if isinstance(atom, Literal) else env[atom]

        last = {v: i for i, e in enumerate(jaxpr.eqns) for v in e.invars if not isinstance(v, Literal)}
        last |= {v: len(jaxpr.eqns) for v in jaxpr.outvars if not isinstance(v, Literal)}
        for i, eqn in enumerate(jaxpr.eqns):
            scope = source_info_util.current_name_stack() + eqn.source_info.name_stack
            with source_info_util.user_context(eqn.source_info.traceback, name_stack=scope), eqn.ctx.manager:
                env.update(zip(eqn.outvars, self.equation(eqn, [read(v) for v in eqn.invars]), strict=True))
            for v in eqn.invars:
                if not isinstance(v, Literal) and last[v] == i:
                    env.pop(v, None)
        return [read(v) for v in jaxpr.outvars]

    def bind(self, eqn: JaxprEqn, values: Sequence[Any], **params: Any) -> Sequence[Any]:
        """Bind the equation's own primitive at `values`, with `params` in place of some of its parameters."""
        primitive = eqn.primitive
        out = primitive.bind(*values, **primitive.get_bind_params({**eqn.params, **params}))
        return out if primitive.multiple_results else [out]

    def descend(self, eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
        """Evaluate an equation that holds programs so that this interpreter runs them."""
        return rebuilt(self, eqn, values)
