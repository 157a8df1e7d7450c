"""Reductions, cumulative ones, windows, sorts."""

from jax.extend.core import JaxprEqn

from refgrad.cost.primitives.rule import Rule, Work, far, kind, names
from refgrad.jaxpr.avals import shape_of, size


def reduce_(eqn: JaxprEqn) -> Work:
    """One operation for each element that goes in beyond those that come out."""
    steps = max(size(eqn.invars[0]) - size(eqn.outvars[0]), 0)  # an empty axis gives the neutral element
    extremum = eqn.primitive.name in ("reduce_max", "reduce_min")
    return Work(elementwise=steps * (9 if extremum and kind(eqn.invars[0]) == "complex" else 1))


def arg_extremum(eqn: JaxprEqn) -> Work:
    """The comparator picks a value and its index: 9 operations with NaNs, 7 for integers."""
    steps = size(eqn.invars[0]) - size(eqn.outvars[0])
    return Work(elementwise=steps * (7 if kind(eqn.invars[0]) in ("int", "uint", "bool") else 9))


def cumulative(eqn: JaxprEqn) -> Work:
    """A window as long as the axis ends at each element: n − 1 operations each."""
    (x,) = eqn.invars
    extremum = eqn.primitive.name in ("cummax", "cummin")
    each, n = 9 if extremum and kind(x) == "complex" else 1, shape_of(x)[eqn.params["axis"]]
    flops, done = each * size(x) * (n - 1), each * (size(x) - size(x) // n) if n else 0
    return Work(elementwise=flops, about=far(flops, done, "n − 1 operations a row"))


def cumlogsumexp(eqn: JaxprEqn) -> Work:
    """Cost of a cumulative log-add-exp: 8 FLOPs and 2 transcendentals a step; complex 113 and 9."""
    (x,) = eqn.invars
    steps = size(x) * (shape_of(x)[eqn.params["axis"]] - 1)
    flops, transcendentals = (113, 9) if kind(x) == "complex" else (8, 2)
    return Work(elementwise=flops * steps, transcendental=transcendentals * steps)


def sort(eqn: JaxprEqn) -> Work:
    """n·⌈log2 n⌉ comparisons, n the elements of the first operand over all rows, as XLA has it."""
    n = size(eqn.invars[0])
    flops = n * (n - 1).bit_length() if n else 0
    row = shape_of(eqn.invars[0])[eqn.params.get("dimension", -1)]
    done = n * (row - 1).bit_length() if n else 0
    return Work(elementwise=flops, about=far(flops, done, "n·log2 n comparisons a row"))


def selection(eqn: JaxprEqn) -> Work:
    """Top-k: XLA counts no operation for it."""
    done = size(eqn.invars[0]) * max(1, (eqn.params["k"] - 1).bit_length())
    return Work(about=far(0, done, "n·log2 k comparisons a row"))


RULES: dict[str, Rule] = {
    **dict.fromkeys(names("reduce_sum reduce_prod reduce_max reduce_min reduce_and reduce_or reduce_xor"), reduce_),
    **dict.fromkeys(("argmax", "argmin"), arg_extremum),
    **dict.fromkeys(names("cumsum cumprod cummax cummin"), cumulative),
    "cumlogsumexp": cumlogsumexp,
    "sort": sort,
    "approx_top_k": sort,
    "top_k": selection,
}
