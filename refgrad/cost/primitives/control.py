"""Equations that run programs: calls, loops, branches, custom rules, rematerialisation, shard_map."""

import math

from jax.extend.core import JaxprEqn

from refgrad.cost.primitives.rule import Bodies, Body, Rule


def call(parameter: str) -> Rule:
    """One run of the program in that parameter, arguments and results in order."""

    def rule(eqn: JaxprEqn) -> Bodies:
        body = eqn.params[parameter]
        return Bodies((Body(body, tuple(range(len(eqn.invars))), tuple(range(len(eqn.outvars)))),))

    return rule


def scan(eqn: JaxprEqn) -> Bodies:
    """`length` runs; a carry is needed where any later trip or the caller needs it."""
    p = eqn.params
    body = Body(
        p["jaxpr"],
        tuple(range(len(eqn.invars))),
        tuple(range(len(eqn.outvars))),
        trips=p["length"],
        carry=p["num_carry"],
        carry_start=p["num_consts"],
    )
    return Bodies((body,))


def cond(eqn: JaxprEqn) -> Bodies:
    """One of the branches."""
    inputs, outputs = tuple(range(1, len(eqn.invars))), tuple(range(len(eqn.outvars)))
    return Bodies(
        tuple(Body(branch, inputs, outputs) for branch in eqn.params["branches"]), dearest=True, also_needed=(0,)
    )


def while_(eqn: JaxprEqn) -> Bodies:
    """Body and condition, trip count unknown unless `refgrad.cost.trips` derives it."""
    p = eqn.params
    n_cond, n_body = p["cond_nconsts"], p["body_nconsts"]
    carry = tuple(range(n_cond + n_body, len(eqn.invars)))
    every = tuple(None for _ in eqn.outvars)  # XLA and JAX keep the whole carry of a while
    condition = Body(p["cond_jaxpr"], (*range(n_cond), *carry), (None,), trips=None)
    body = Body(p["body_jaxpr"], (*range(n_cond, n_cond + n_body), *carry), every, trips=None)
    return Bodies((condition, body))


def shard_map(eqn: JaxprEqn) -> Bodies:
    """One run on each device of the manual axes."""
    p = eqn.params
    devices = math.prod(p["mesh"].shape[axis] for axis in p["newly_manual_axes"])
    inputs, outputs = tuple(range(len(eqn.invars))), tuple(range(len(eqn.outvars)))
    return Bodies((Body(p["jaxpr"], inputs, outputs, devices=devices),))


RULES: dict[str, Rule] = {
    **dict.fromkeys(("jit", "pjit", "closed_call", "remat2", "checkpoint"), call("jaxpr")),
    "core_call": call("call_jaxpr"),
    "custom_jvp_call": call("call_jaxpr"),
    "custom_vjp_call": call("call_jaxpr"),
    "scan": scan,
    "cond": cond,
    "while": while_,
    "shard_map": shard_map,
}
