"""Gathers move; scatters combine each update with the element there."""

from jax.extend.core import JaxprEqn

from refgrad.cost.primitives.movement import part_read
from refgrad.cost.primitives.rule import Programs, Rule, Work, combine, kind, names
from refgrad.jaxpr.avals import dtype_of, nbytes, shape_of, size


def gather(eqn: JaxprEqn) -> Work:
    """Nothing but bytes, unless what lies outside gives a fill value: then each index is compared with both bounds.

    The two comparisons of an index are joined, and those of all axes; each element of the result is chosen. Indices
    other than int32 are converted first.
    """
    work = part_read(eqn)
    if _mode(eqn) != "FILL_OR_DROP":
        return work
    indices, (out,) = eqn.invars[1], eqn.outvars
    n, axes = size(indices), shape_of(indices)[-1]
    converted = n if dtype_of(indices).name != "int32" else 0
    return work._replace(elementwise=size(out) + converted + 3 * n + (n - n // axes if axes else 0))


def _mode(eqn: JaxprEqn) -> str:
    return getattr(eqn.params["mode"], "name", "")


def _clamped(eqn: JaxprEqn) -> int:
    """Each index of a scatter that clips is clamped; a gather clips by itself."""
    return size(eqn.invars[1]) if _mode(eqn) == "CLIP" else 0


def scatter_set(eqn: JaxprEqn) -> Work | Programs:
    """Setting combines nothing; `lax.scatter_apply` runs a function of one's own on each element. In place."""
    _, indices, updates = eqn.invars
    n = nbytes(updates)
    work = Work(elementwise=_clamped(eqn), read=nbytes(indices) + n, written=n)
    update = eqn.params.get("update_jaxpr")
    return work if update is None else combine(eqn, update, size(updates), work)


def scatter(eqn: JaxprEqn) -> Work:
    """One combination for each element of the updates. In place."""
    _, indices, updates = eqn.invars
    name, n = eqn.primitive.name, nbytes(updates)
    extremum = name in ("scatter-max", "scatter-min")
    each = 9 if extremum and kind(updates) == "complex" else 1
    return Work(elementwise=each * size(updates) + _clamped(eqn), read=nbytes(indices) + 2 * n, written=n)


RULES: dict[str, Rule] = {
    "gather": gather,
    "scatter": scatter_set,
    **dict.fromkeys(names("scatter-add scatter-sub scatter-mul scatter-max scatter-min"), scatter),
}
