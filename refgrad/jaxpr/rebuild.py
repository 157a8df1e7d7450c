"""Structured primitives built again around an interpreter: one short function for each kind.

Every function takes `(interpreter, eqn, values)` and returns the equation's outputs as a list. It goes through the
public function that makes such an equation; otherwise through the primitive itself, with its programs traced
again. The table in `calls` says which function serves which primitive; `retrace` serves the rest.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from refgrad.jaxpr import hiprim
from refgrad.jaxpr.versions import called, scan_operands

if TYPE_CHECKING:
    from refgrad.jaxpr.interpret import Interpreter


def inline(ip: "Interpreter", eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    """A call without meaning of its own: its program, run in place."""
    return ip.call(called(eqn.params))(*values)


def shell(ip: "Interpreter", eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    """A call that means something to another transformation only, as `custom_vmap` does: its program, run in place."""
    p = eqn.params
    return ip.call(p["call"] if "call" in p else called(p))(*values)


def jit(ip: "Interpreter", eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    """`jax.jit` with its shardings and name; nothing is donated, since the caller still owns what it passed."""
    traced = jax.make_jaxpr(ip.call(eqn.params["jaxpr"]))(*values)
    return ip.bind(eqn, values, jaxpr=traced, donated_invars=(False,) * len(values))


def scan(ip: "Interpreter", eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    """`lax.scan`: constants, carry and slices, in that order."""
    p, body = eqn.params, ip.call(eqn.params["jaxpr"])
    n_consts, n_carry = scan_operands(p)
    consts, carry, slices = values[:n_consts], values[n_consts:][:n_carry], values[n_consts + n_carry :]

    def step(carry, x):
        out = body(*consts, *carry, *x)
        return out[:n_carry], out[n_carry:]

    settings = {k: p[k] for k in ("length", "reverse", "unroll")}
    carry, stacked = lax.scan(step, list(carry), list(slices), **settings)
    return [*carry, *stacked]


def while_loop(ip: "Interpreter", eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    """`lax.while_loop`: constants of the condition, of the body, then the carry."""
    p = eqn.params
    n_cond, n_body = p["cond_nconsts"], p["body_nconsts"]
    cond_consts, body_consts, carry = values[:n_cond], values[n_cond:][:n_body], values[n_cond + n_body :]
    cond, body = ip.call(p["cond_jaxpr"]), ip.call(p["body_jaxpr"])
    if not p["cond_jaxpr"].out_avals[0].shape:
        return lax.while_loop(lambda c: cond(*cond_consts, *c)[0], lambda c: body(*body_consts, *c), list(carry))

    def step(c):  # a condition for each lane, as `vmap` makes it: a lane that is done keeps its carry
        going = cond(*cond_consts, *c)[0]
        new = body(*body_consts, *c)
        return [
            lax.select(lax.broadcast_in_dim(going, x.shape, range(going.ndim)), y, x)
            for x, y in zip(c, new, strict=True)
        ]

    return lax.while_loop(lambda c: cond(*cond_consts, *c)[0].any(), step, list(carry))


def cond(ip: "Interpreter", eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    """`lax.cond` and `lax.switch`; a choice by platform keeps its platforms, so that only one of them is lowered."""
    branches = [ip.call(b) for b in eqn.params["branches"]]
    index, *operands = values
    platforms = eqn.params.get("branches_platforms")
    if platforms is None:
        return lax.switch(index, branches, *operands)
    named = {p: branch for ps, branch in zip(platforms, branches, strict=True) for p in ps or ()}
    default = next((b for ps, b in zip(platforms, branches, strict=True) if ps is None), None)
    return lax.platform_dependent(*operands, default=default, **named)


def checkpoint(ip: "Interpreter", eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    """`jax.checkpoint` with its policy."""
    p = eqn.params
    return jax.checkpoint(ip.call(p["jaxpr"]), prevent_cse=p["prevent_cse"], policy=p["policy"])(*values)


def shard_map(ip: "Interpreter", eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    """`jax.shard_map` over the axes that this equation made manual."""
    p = eqn.params
    return jax.shard_map(
        ip.call(p["jaxpr"]),
        mesh=p["mesh"],
        in_specs=p["in_specs"],
        out_specs=list(p["out_specs"]),
        axis_names=set(p["newly_manual_axes"]),
        check_vma=p["check_vma"],
    )(*values)


def linear_solve(ip: "Interpreter", eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    """`lax.custom_linear_solve`: its four programs take their own constants and a right-hand side."""
    lengths, programs = eqn.params["const_lengths"], eqn.params["jaxprs"]
    rest, rhs = list(values), values[sum(lengths) :]
    traced = []
    for length, program in zip(lengths, programs, strict=True):
        consts, rest = rest[:length], rest[length:]
        traced.append(program and jax.make_jaxpr(ip.call(program))(*consts, *rhs))
    return ip.bind(eqn, values, jaxprs=type(programs)(*traced))


def custom_jvp(ip: "Interpreter", eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    """A `jax.custom_jvp` function that keeps its rule: the rule is a program too, and is run by the same interpreter.

    The rule's Python code runs when it is differentiated, on the types and under the x64 setting of the user's program.
    """
    rule = eqn.primitive.get_bind_params(eqn.params)["subfuns"][1].call_wrapped
    return _with_jvp(ip, eqn, values, eqn.params["call_jaxpr"], rule, eqn.params["symbolic_zeros"])


def expand(ip: "Interpreter", eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    """A rule that is left out: its forward, run in place."""
    with jax.enable_x64(ip.x64):
        program = hiprim.expansion(eqn)
    return ip.call(program)(*values)


def checkpoint_object(ip: "Interpreter", eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    """`jax.checkpoint` with its policy, as `jax_remat3` writes it."""
    prim = hiprim.prim_of(eqn)
    return jax.checkpoint(ip.call(prim.jaxpr), prevent_cse=prim.prevent_cse, policy=prim.policy)(*values)


def hi_primitive(ip: "Interpreter", eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    """A function of JAX's own, such as `lax.custom_root`, keeps its derivative; the rule of a user is left out."""
    return (with_own_jvp if hiprim.is_own(hiprim.prim_of(eqn)) else expand)(ip, eqn, values)


def with_own_jvp(ip: "Interpreter", eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    """An object's program, with the derivative that JAX gives the equation itself."""

    def rule(*xs):
        primals, tangents = xs[: len(values)], xs[len(values) :]
        moving = [i for i, t in enumerate(tangents) if type(t) is not SymbolicZero]

        def bound(*given):
            full = list(primals)
            for i, x in zip(moving, given, strict=True):
                full[i] = x
            return list(ip.bind(eqn, full))

        made, moved = jax.jvp(bound, [primals[i] for i in moving], [tangents[i] for i in moving])
        return *made, *moved

    with jax.enable_x64(ip.x64):
        program = hiprim.expansion(eqn)
    return _with_jvp(ip, eqn, values, program, rule, symbolic=True)


def _with_jvp(
    ip: "Interpreter",
    eqn: JaxprEqn,
    values: Sequence[Any],
    program: ClosedJaxpr | Jaxpr,
    rule: Callable[..., Sequence[Any]],
    symbolic: bool,
) -> Sequence[Any]:
    """`program` at `values`, with a jvp rule from (primals, tangents) to (outputs, their tangents), all flat."""
    inputs = [v.aval for v in eqn.invars]
    outputs = [v.aval for v in eqn.outvars]

    @jax.custom_jvp
    def rebuilt(*primals):
        return ip.call(program)(*primals)

    def jvp(primals, tangents):
        moving = [type(t) is not SymbolicZero for t in tangents]
        flows: list[bool] = []

        def user_rule(*xs):
            given = iter(xs[len(inputs) :])
            out = rule(
                *xs[: len(inputs)],
                *(next(given) if m else zero(a, symbolic) for m, a in zip(moving, inputs, strict=True)),
            )
            flows[:] = [type(t) is not SymbolicZero and t.dtype != jax.dtypes.float0 for t in out[len(outputs) :]]
            return *out[: len(outputs)], *(t for t, f in zip(out[len(outputs) :], flows, strict=True) if f)

        tangent_avals = [a.to_tangent_aval() for a, m in zip(inputs, moving, strict=True) if m]
        with jax.enable_x64(ip.x64):
            traced = jax.make_jaxpr(user_rule)(*inputs, *tangent_avals)
        out = ip.call(traced)(*primals, *(t for t, m in zip(tangents, moving, strict=True) if m))
        values, given = out[: len(outputs)], iter(out[len(outputs) :])
        return values, [
            next(given) if f else SymbolicZero(jax.typeof(v).to_tangent_aval())
            for v, f in zip(values, flows, strict=True)
        ]

    rebuilt.defjvp(jvp, symbolic_zeros=True)
    return rebuilt(*values)


def zero(aval, symbolic: bool):
    """Return the tangent of an argument into which nothing flows: a symbolic zero if the jvp rule asked for those."""
    tangent = aval.to_tangent_aval()
    return SymbolicZero(tangent) if symbolic else np.zeros(tangent.shape, tangent.dtype)


def retrace(ip: "Interpreter", eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    """Any other primitive (scatter, reduce, ...): itself, with the programs it holds traced again."""

    def trace(program: ClosedJaxpr | Jaxpr) -> ClosedJaxpr | Jaxpr:
        if isinstance(program, ClosedJaxpr):
            return jax.make_jaxpr(ip.call(program))(*map(ip.type, program.in_avals))
        return jax.make_jaxpr(ip.call(program))(*(ip.type(v.aval) for v in program.invars)).jaxpr

    params = {k: trace(v) for k, v in eqn.params.items() if isinstance(v, ClosedJaxpr | Jaxpr)}
    return ip.bind(eqn, values, **params)
