"""The bytes that a backward pass needs its forward pass to keep, exact, by scope; XLA's own figures beside.

Kept are the arrays that JAX's pullback holds: the results of the traced `jax.vjp` beside the function's own.
Some of them are the function's arguments (parameters, say), which live anyway and are shown apart.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from refgrad._text import table
from refgrad.cost.arguments import Argnums
from refgrad.cost.count import differentiable
from refgrad.cost.primitives import price
from refgrad.cost.primitives.rule import Programs
from refgrad.jaxpr.avals import dtype_of, is_on_host, nbytes, shape_of
from refgrad.jaxpr.calls import Body
from refgrad.jaxpr.programs import makers, scope_of, source_of
from refgrad.jaxpr.versions import opened

MOVES = ("device_put", "copy")
IDENTITIES = ("optimization_barrier", "stop_gradient", "name", "pvary", "copy_p")


class Kept(NamedTuple):
    """One array that is kept from forward to backward.

    Attributes:
      scope: `jax.named_scope` path of the equation that makes it; "" outside every scope and for arguments.
      primitive: the primitive that makes it; "argument" for one of the function's arguments, "constant" for a constant.
      source: file:line of the code that makes it; for an argument, its position in the flattened arguments.
      shape: its shape.
      dtype: its dtype's name.
      bytes: its size.
      host: True for an array that is offloaded to the host's memory.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import cost
      >>> (kept,) = cost.residuals(jnp.sin, jnp.ones(8)).kept
      >>> kept.primitive, kept.shape, kept.bytes
      ('cos', (8,), 32)
    """

    scope: str
    primitive: str
    source: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    host: bool = False


@dataclass(frozen=True)
class Residuals:
    """Residuals of a function's backward pass; prints as a table by scope.

    Attributes:
      kept: every array made in the forward pass, once, in the order of the pullback.
      arguments: the function's own arguments that are kept, once each: no memory beyond what the caller holds.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import cost
      >>> residuals = cost.residuals(jnp.matmul, jnp.ones((2, 3)), jnp.ones((3, 5)))
      >>> residuals.bytes, residuals.argument_bytes
      (0, 84)
    """

    kept: tuple[Kept, ...]
    arguments: tuple[Kept, ...]

    @property
    def bytes(self) -> int:
        """Bytes of `kept`: the memory of the backward pass beyond the arguments."""
        return sum(array.bytes for array in self.kept)

    @property
    def host_bytes(self) -> int:
        """Bytes of `kept` that are offloaded to the host; the device holds the others."""
        return sum(array.bytes for array in self.kept if array.host)

    @property
    def argument_bytes(self) -> int:
        """Bytes of `arguments`."""
        return sum(array.bytes for array in self.arguments)

    @property
    def by_scope(self) -> dict[str, int]:
        """Scope path → bytes made at exactly that path; they sum to `bytes`."""
        parts: dict[str, int] = {}
        for array in self.kept:
            parts[array.scope] = parts.get(array.scope, 0) + array.bytes
        return parts

    def __str__(self) -> str:
        rows = [[scope or "(no scope)", f"{n:,}", f"{n / self.bytes:.1%}"] for scope, n in self.by_scope.items() if n]
        rows.append(["total", f"{self.bytes:,}", "100.0%" if self.bytes else ""])
        if self.host_bytes:
            rows.append(["on the host", f"{self.host_bytes:,}", f"{self.host_bytes / self.bytes:.1%}"])
        rows.append(["arguments, kept anyway", f"{self.argument_bytes:,}", ""])
        return table(["scope", "bytes", "%"], rows)


def residuals(
    f: Callable[..., Any], *args: Any, kwargs: Mapping[str, Any] | None = None, argnums: Argnums = None
) -> Residuals:
    """Return the arrays that `jax.vjp` of f at its arguments keeps; nothing is computed.

    Custom rules keep what they return as residuals, `jax.checkpoint` its arguments (or what its policy saves).

    Args:
      f: the function.
      *args: its arguments, as for `count`.
      kwargs: its keyword arguments, as for `count_backward`.
      argnums: the positions to differentiate, as for `count_backward`.

    Returns:
      A `Residuals`: it prints as a table by scope, and has `.bytes` and `.kept`.

    Raises:
      TypeError, ValueError: as `count_backward` does.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import cost
      >>> cost.residuals(jnp.sin, jnp.ones(8)).bytes  # cos x, in float32
      32
    """
    leaves, pullback = differentiable(f, *args, kwargs=kwargs, argnums=argnums)
    traced, (out, _) = jax.make_jaxpr(pullback, return_shape=True)(*leaves)
    jaxpr, outputs = traced.jaxpr, len(jax.tree.leaves(out))
    trace = _Trace()
    made: dict[Any, Kept] = {}
    given: dict[Any, Kept] = {}
    for v in jaxpr.outvars[outputs:]:
        origin = trace.origin(jaxpr, v)
        if isinstance(origin, Literal):  # a scalar of the program's text takes no memory
            continue
        if origin in jaxpr.invars:
            given[origin] = _kept(origin, Maker("", "argument", f"#{jaxpr.invars.index(origin)}"))
        else:
            made[origin] = _kept(origin, trace.maker(jaxpr, origin))
    return Residuals(tuple(made.values()), tuple(given.values()))


class Maker(NamedTuple):
    """The equation that makes an array: scope, primitive, file:line."""

    scope: str
    primitive: str
    source: str


def _kept(v: Any, maker: Maker) -> Kept:
    return Kept(*maker, tuple(shape_of(v)), str(dtype_of(v)), nbytes(v), is_on_host(v))


class _Trace:
    """Tracer of variables up a jaxpr and into the programs that its equations run."""

    def __init__(self) -> None:
        self._makers: dict[int, tuple[Jaxpr, dict[Any, tuple[JaxprEqn, int]]]] = {}

    def origin(self, jaxpr: Jaxpr, v: Any) -> Any:
        """The same array further up: through identities, and through calls that hand an operand on."""
        while not isinstance(v, Literal) and (made := self._producer(jaxpr, v)):
            eqn, i = made
            operand = i if eqn.primitive.name in IDENTITIES else self._handed_on(eqn, i)
            if operand is None:
                break
            v = eqn.invars[operand]
        return v

    def maker(self, jaxpr: Jaxpr, v: Any) -> Maker:
        """The equation that makes the variable, as deep inside calls and loops as it is made."""
        made = None if isinstance(v, Literal) else self._producer(jaxpr, v)
        if made is None:
            return Maker("", "constant", "")
        eqn, i = made
        if eqn.primitive.name in MOVES:  # to the host and back: made where the array is
            return self.maker(jaxpr, self.origin(jaxpr, eqn.invars[i]))
        (scope, _), source = scope_of(eqn), source_of(eqn)
        inner = _result(eqn, i)
        if inner is not None:
            below = self.maker(inner[0], self.origin(*inner))
            if below.primitive != "constant":
                path = "/".join(filter(None, (scope, below.scope)))
                return Maker(path, below.primitive, below.source or source)
        return Maker(scope, eqn.primitive.name, source)

    def _handed_on(self, eqn: JaxprEqn, i: int) -> int | None:
        """The operand that a call returns unchanged as its i-th result; None where it makes it (as loops do)."""
        body, inner = _body(eqn), _result(eqn, i)
        if body is None or inner is None or body.carry or body.trips != 1:
            return None
        jaxpr, _ = inner
        origin = self.origin(*inner)
        if isinstance(origin, Literal) or origin not in jaxpr.invars:
            return None
        return body.inputs[jaxpr.invars.index(origin)]

    def _producer(self, jaxpr: Jaxpr, v: Any) -> tuple[JaxprEqn, int] | None:
        """The equation that makes the variable, and which of its results it is."""
        if id(jaxpr) not in self._makers:  # the jaxpr is kept, so that its id stays its own
            self._makers[id(jaxpr)] = (jaxpr, makers(jaxpr))
        return self._makers[id(jaxpr)][1].get(v)


def _result(eqn: JaxprEqn, i: int) -> tuple[Jaxpr, Any] | None:
    """Return the one program that an equation runs, and the result of it that becomes its i-th; None without one."""
    body = _body(eqn)
    if body is None or i not in body.outputs:
        return None
    jaxpr = opened(body.jaxpr)
    return jaxpr, jaxpr.outvars[body.outputs.index(i)]


def _body(eqn: JaxprEqn) -> Body | None:
    """Return the one program that an equation runs; None where it runs none, or several."""
    programs = price(eqn)
    bodies = programs.bodies.all if isinstance(programs, Programs) else ()
    return bodies[0] if len(bodies) == 1 else None
