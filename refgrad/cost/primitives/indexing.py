"""Gathers move; scatters combine each update with what is there."""

from jax.extend.core import JaxprEqn

from refgrad.cost.primitives.rule import Rule, Work, free, kind, names, size


def scatter(eqn: JaxprEqn) -> Work:
    """One combination for each element of the updates; setting combines nothing."""
    name, updates = eqn.primitive.name, eqn.invars[2]
    if name == "scatter":
        return Work()
    extremum = name in ("scatter-max", "scatter-min")
    return Work(elementwise=size(updates) * (9 if extremum and kind(updates) == "complex" else 1))


RULES: dict[str, Rule] = {
    "gather": free,
    **dict.fromkeys(
        names("scatter scatter-add scatter-sub scatter-mul scatter-max scatter-min"),
        scatter,
    ),
}
