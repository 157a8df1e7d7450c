"""Data movement: bytes, and no operation on any element."""

from jax.extend.core import JaxprEqn

from refgrad.cost.primitives.rule import Rule, Work, free, names
from refgrad.jaxpr.avals import nbytes, size


def relabel(eqn: JaxprEqn) -> Work:
    """The same bytes under another shape, type or name: nothing moves."""
    return Work(read=0, written=0)


def part_read(eqn: JaxprEqn) -> Work:
    """Read as much of the first operand as is returned, and all of the others (indices)."""
    return Work(read=sum(nbytes(v) for v in (*eqn.outvars, *eqn.invars[1:])))


def part_written(eqn: JaxprEqn) -> Work:
    """Write the update in place: read it and the indices, write as much."""
    update = eqn.invars[1]
    return Work(read=sum(nbytes(v) for v in eqn.invars[1:]), written=nbytes(update))


def reference(eqn: JaxprEqn) -> Work:
    """Read or write through a Ref: the bytes of the results and of the values stored."""
    put = eqn.invars[1:2] if eqn.primitive.name != "get" else []
    return Work(read=sum(nbytes(v) for v in eqn.outvars), written=sum(nbytes(v) for v in put))


def addupdate(eqn: JaxprEqn) -> Work:
    """Add to the value of a Ref."""
    update = eqn.invars[1]
    n = nbytes(update)
    return Work(elementwise=size(update), read=2 * n, written=n)


RULES: dict[str, Rule] = {
    **dict.fromkeys(
        names(
            "broadcast_in_dim transpose concatenate rev pad iota copy device_put "
            "split stack unstack broadcast_to tile empty empty2 iota_2x32_shape new_ref freeze"
        ),
        free,
    ),
    **dict.fromkeys(
        names(
            "reshape squeeze stop_gradient name optimization_barrier sharding_constraint "
            "layout_constraint with_memory_space_constraint reshard pvary create_token "
            "after_all random_wrap random_unwrap random_clone to_edtype from_edtype tie pin unpin "
            "dce_sink multiple_of debug_callback debug_print inspect_sharding program_id num_programs "
            "platform_index stage"
        ),
        relabel,
    ),
    **dict.fromkeys(names("slice dynamic_slice"), part_read),
    "dynamic_update_slice": part_written,
    **dict.fromkeys(names("get swap masked_load masked_swap"), reference),
    "addupdate": addupdate,
}
