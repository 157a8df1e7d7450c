"""Collectives inside `shard_map`, per device: `Count` multiplies by the devices.

A sum over devices costs one operation for each element of the result, which is XLA's convention (it
assumes two replicas); a ring of d devices does (d − 1)/d of that on each. A reduce-scatter, which XLA
leaves at 0, adds |in| − |out| on each device. Everything else moves.
"""

from jax.extend.core import JaxprEqn

from refgrad.cost.primitives.movement import relabel
from refgrad.cost.primitives.rule import Rule, Work, free, names
from refgrad.jaxpr.avals import size


def all_reduce(eqn: JaxprEqn) -> Work:
    """One operation for each element of the results; over an axis that `vmap` has named, a plain reduction."""
    across = sum(size(v) for v in eqn.outvars) if any(isinstance(axis, str) for axis in eqn.params["axes"]) else 0
    within = sum(size(v) for v in eqn.invars) - sum(size(v) for v in eqn.outvars)
    return Work(elementwise=across + within)


def reduce_scatter(eqn: JaxprEqn) -> Work:
    """Every element that goes in beyond those that come out is added to one."""
    return Work(elementwise=size(eqn.invars[0]) - size(eqn.outvars[0]))


def axis_index(eqn: JaxprEqn) -> Work:
    """The device's number divided, its remainder, and a conversion."""
    return Work(elementwise=3)


RULES: dict[str, Rule] = {
    **dict.fromkeys(
        names(
            "psum psum_invariant psum_start psum_invariant_start unreduced_psum unreduced_psum_start pmax pmin "
            "unreduced_pmax unreduced_pmin"
        ),
        all_reduce,
    ),
    **dict.fromkeys(
        names("reduce_scatter reduce_scatter_start unreduced_reduce_scatter unreduced_reduce_scatter_start"),
        reduce_scatter,
    ),
    **dict.fromkeys(
        names(
            "all_gather all_gather_invariant all_gather_reduced all_gather_start all_gather_reduced_start "
            "all_to_all all_to_all_start ppermute ppermute_start ragged_all_to_all pbroadcast pbroadcast_start "
            "pbroadcast_dynamic psend precv"
        ),
        free,
    ),
    **dict.fromkeys(
        names(
            "psum_done all_gather_done all_to_all_done ppermute_done pbroadcast_done reduce_scatter_done "
            "preduced reduced_vary_cast reduced_vary_cast_p vary_unreduced_cast vary_unreduced_cast_p"
        ),
        relabel,
    ),
    "axis_index": axis_index,
}
