"""Gathers move; scatters combine each update with what is there."""

from jax.extend.core import JaxprEqn

from refgrad.cost.primitives.movement import part_read
from refgrad.cost.primitives.rule import Bodies, Rule, Work, combine, kind, names, nbytes, size


def scatter_set(eqn: JaxprEqn) -> Work | Bodies:
    """Setting combines nothing; `lax.scatter_apply` runs a function of one's own on each element. In place."""
    _, indices, updates = eqn.invars
    n = nbytes(updates)
    work = Work(read=nbytes(indices) + n, written=n)
    update = eqn.params.get("update_jaxpr")
    return work if update is None else combine(eqn, update, size(updates), work)


def scatter(eqn: JaxprEqn) -> Work:
    """One combination for each element of the updates. In place."""
    _, indices, updates = eqn.invars
    name, n = eqn.primitive.name, nbytes(updates)
    extremum = name in ("scatter-max", "scatter-min")
    each = 9 if extremum and kind(updates) == "complex" else 1
    return Work(elementwise=each * size(updates), read=nbytes(indices) + 2 * n, written=n)


RULES: dict[str, Rule] = {
    "gather": part_read,
    "scatter": scatter_set,
    **dict.fromkeys(names("scatter-add scatter-sub scatter-mul scatter-max scatter-min"), scatter),
}
