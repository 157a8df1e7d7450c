"""A jaxpr evaluated equation by equation, with every loop, branch and call rebuilt on the way down.

`jax.make_jaxpr` turns a function into a program; an `Interpreter` runs that program again with the public functions
that made it (`lax.scan`, `lax.while_loop`, `jax.checkpoint`, `jax.shard_map`, ...), so its result is traced, mapped
and differentiated as any JAX function is. A subclass says what becomes of one equation: `rules.py` drops rules,
`widen.py` evaluates in float64, `blame.py` records what flows through them.

Inner programs are traced anew on the values that reach them, never on shapes and dtypes alone: only so do varying
axes, explicit shardings and weak types survive.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import source_info_util
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from refgrad._jax import programs_in
from refgrad.verify import rebuild
from refgrad.verify.numbers import canonical


class Interpreter:
    """Evaluates programs as they are. Subclasses override `equation`, and `constant` where values change."""

    def __init__(self) -> None:
        self.x64 = (
            jax.dtypes.canonicalize_dtype(np.float64) == np.float64
        )  # the setting under which the user's own Python code is traced

    def constant(self, value: Any, aval: Any) -> Any:
        """The value of a literal or constant of the program."""
        del aval
        return value

    def equation(self, eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
        """The outputs of one equation at `values`."""
        return self.bind(eqn, values)

    def type(self, aval: Any) -> Any:
        """The type that stands for `aval` when an inner program is traced without values at hand."""
        return aval

    def call(self, program: ClosedJaxpr | Jaxpr) -> Callable[..., list]:
        """`program` as a function from its flat inputs to the list of its outputs."""
        closed = program if isinstance(program, ClosedJaxpr) else ClosedJaxpr(program, ())
        return lambda *values: self.run(closed, values)

    def run(self, closed: ClosedJaxpr, values: Sequence[Any]) -> list:
        """The outputs of `closed` at `values`, each equation under its own source line, scope and mesh."""
        jaxpr = closed.jaxpr
        consts = (self.constant(c, v.aval) for c, v in zip(closed.consts, jaxpr.constvars, strict=True))
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
        """The equation's own primitive at `values`, with `params` in place of some of its parameters."""
        primitive = eqn.primitive
        out = primitive.bind(*values, **primitive.get_bind_params({**eqn.params, **params}))
        return out if primitive.multiple_results else [out]

    def descend(self, eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
        """An equation that holds programs, rebuilt so that this interpreter runs them."""
        return rebuild.BUILDERS.get(eqn.primitive.name, rebuild.anew)(self, eqn, values)


def equations(program: ClosedJaxpr | Jaxpr) -> Iterator[JaxprEqn]:
    """Every equation of a program and of the programs inside it, in order of appearance."""
    for eqn in program.eqns:
        yield eqn
        yield from inside(eqn)


def inside(eqn: JaxprEqn) -> Iterator[JaxprEqn]:
    """Every equation of the programs that `eqn` holds."""
    for program in programs_in(eqn):
        yield from equations(program)


def line(eqn: JaxprEqn) -> str:
    """`file:line (function)` of the user's code that made the equation; empty where JAX's own code made it."""
    return source_info_util.summarize(eqn.source_info)


def trace(f: Callable, args: tuple, kwargs: dict) -> tuple[ClosedJaxpr, list, Any]:
    """`f` as a program of its array arguments: (program, those arguments flat, tree of its outputs).

    Everything else among the leaves (Python scalars, strings, functions) is static and reaches `f` as it is.
    """
    leaves, tree = jax.tree.flatten((args, kwargs))
    where = [i for i, leaf in enumerate(leaves) if isinstance(leaf, ARRAYS)]

    def flat(*arrays):
        mixed = list(leaves)
        for i, array in zip(where, arrays, strict=True):
            mixed[i] = array
        inner_args, inner_kwargs = jax.tree.unflatten(tree, mixed)
        return f(*inner_args, **inner_kwargs)

    arrays = [canonical(leaves[i]) for i in where]
    program, shapes = jax.make_jaxpr(flat, return_shape=True)(*arrays)
    return program, arrays, jax.tree.structure(shapes)


ARRAYS = (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct)
