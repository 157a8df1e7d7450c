"""Equations that run programs: calls, loops, branches, custom rules, rematerialisation, shard_map."""

import math
from collections.abc import Callable

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from refgrad._jax import called, expansion, scan_operands
from refgrad.cost.primitives.rule import Bodies, Body, Rule, Work, names


def call(program: Callable[[JaxprEqn], Jaxpr | ClosedJaxpr]) -> Rule:
    """One run of the program that `program` finds in the equation, arguments and results in order."""

    def rule(eqn: JaxprEqn) -> Bodies:
        return Bodies((Body(program(eqn), tuple(range(len(eqn.invars))), tuple(range(len(eqn.outvars)))),))

    return rule


def scan(eqn: JaxprEqn) -> Bodies:
    """`length` runs; a carry is needed where any later trip or the caller needs it."""
    p = eqn.params
    constants, carried = scan_operands(p)
    body = Body(
        p["jaxpr"],
        tuple(range(len(eqn.invars))),
        tuple(range(len(eqn.outvars))),
        trips=p["length"],
        carry=carried,
        carry_start=constants,
    )
    return Bodies((body,))


def cond(eqn: JaxprEqn) -> Bodies:
    """One of the branches: the dearest, or, of `lax.platform_dependent`, the default backend's."""
    inputs, outputs = tuple(range(1, len(eqn.invars))), tuple(range(len(eqn.outvars)))
    platforms = eqn.params.get("branches_platforms")
    if platforms is not None:
        branch = eqn.params["branches"][_chosen(platforms)]
        return Bodies((Body(branch, inputs, outputs),), also_needed=(0,))
    return Bodies(
        tuple(Body(branch, inputs, outputs) for branch in eqn.params["branches"]), dearest=True, also_needed=(0,)
    )


def _chosen(platforms: tuple[tuple[str, ...] | None, ...]) -> int:
    """The first branch for the default backend, or for every other (None); JAX has made sure of one."""
    backend = jax.default_backend()
    ours = {"cuda", "rocm"} if backend == "gpu" else {backend}
    return next(i for i, names in enumerate(platforms) if names is None or ours & set(names))


def while_(eqn: JaxprEqn) -> Bodies:
    """Body and condition, trip count unknown unless `refgrad.cost.trips` derives it."""
    p = eqn.params
    n_cond, n_body = p["cond_nconsts"], p["body_nconsts"]
    carry = tuple(range(n_cond + n_body, len(eqn.invars)))
    every = tuple(None for _ in eqn.outvars)  # XLA and JAX keep the whole carry of a while
    condition = Body(p["cond_jaxpr"], (*range(n_cond), *carry), (None,), trips=None, carry_start=n_cond)
    body = Body(p["body_jaxpr"], (*range(n_cond, n_cond + n_body), *carry), every, trips=None, carry_start=n_body)
    return Bodies((condition, body))


def shard_map(eqn: JaxprEqn) -> Bodies:
    """One run on each device of the manual axes."""
    p = eqn.params
    devices = math.prod(p["mesh"].shape[axis] for axis in p["newly_manual_axes"])
    inputs, outputs = tuple(range(len(eqn.invars))), tuple(range(len(eqn.outvars)))
    return Bodies((Body(p["jaxpr"], inputs, outputs, devices=devices),))


def custom_linear_solve(eqn: JaxprEqn) -> Bodies:
    """The solver alone runs; the matrix's own products are for its derivative."""
    lengths, jaxprs = eqn.params["const_lengths"], eqn.params["jaxprs"]
    start = lengths.matvec + lengths.vecmat
    right_sides = range(sum(lengths), len(eqn.invars))
    inputs = (*range(start, start + lengths.solve), *right_sides)
    outputs = tuple(range(len(jaxprs.solve.jaxpr.outvars)))
    return Bodies((Body(jaxprs.solve, inputs, outputs),))


def kernel(eqn: JaxprEqn) -> Bodies:
    """A Pallas kernel: its body at every point of its grid; its bytes are its operands and results."""
    grid = eqn.params["grid_mapping"].grid
    trips = math.prod(grid) if all(isinstance(n, int) for n in grid) else None
    return _opaque(eqn, trips=trips, moves=False)


def scoped(eqn: JaxprEqn) -> Bodies:
    """One run of a program on references."""
    return Bodies(_opaque(eqn).all, also_needed=tuple(range(len(eqn.invars))))


def _opaque(eqn: JaxprEqn, **options) -> Bodies:
    """A body whose arguments are not the equation's operands one by one: all of them are needed."""
    jaxpr = eqn.params["jaxpr"]
    inner = getattr(jaxpr, "jaxpr", jaxpr)
    body = Body(jaxpr, (None,) * len(inner.invars), (None,) * len(inner.outvars), **options)
    return Bodies((body,), also_needed=tuple(range(len(eqn.invars))), work=Work())


CALLS = names("call closed_call composite custom_jvp_call custom_vjp_call eval_jaxpr jit remat2")

RULES: dict[str, Rule] = {
    **dict.fromkeys(CALLS, call(lambda eqn: called(eqn.params))),
    **dict.fromkeys(("custom_vmap_call", "custom_partitioning"), call(lambda eqn: eqn.params["call"])),
    "call_hi_primitive": call(expansion),
    "linear_call": call(lambda eqn: eqn.params["callee"]),
    "remat_opt": call(lambda eqn: eqn.params["fwd_jaxpr"]),
    "custom_linear_solve": custom_linear_solve,
    "pallas_call": kernel,
    **dict.fromkeys(("run_scoped", "run_state"), scoped),
    "scan": scan,
    "cond": cond,
    "while": while_,
    "shard_map": shard_map,
}
