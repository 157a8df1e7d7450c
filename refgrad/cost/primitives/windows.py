"""Reductions by a combiner of one's own, sliding windows, and their transposes."""

import math

from jax.extend.core import JaxprEqn

from refgrad.cost.primitives.rule import Programs, Rule, Work, combine, kind
from refgrad.jaxpr.avals import size


def reduce_(eqn: JaxprEqn) -> Programs:
    """The combiner once for each element that goes in beyond those that come out."""
    return combine(eqn, eqn.params["jaxpr"], max(size(eqn.invars[0]) - size(eqn.outvars[0]), 0))


def reduce_window(eqn: JaxprEqn) -> Programs:
    """The combiner once less than the window has places, for each result."""
    return combine(eqn, eqn.params["jaxpr"], size(eqn.outvars[0]) * (math.prod(eqn.params["window_dimensions"]) - 1))


def window(eqn: JaxprEqn) -> Work:
    """Cost of `reduce_window` with a sum, maximum or minimum as its combiner."""
    steps = size(eqn.outvars[0]) * (math.prod(eqn.params["window_dimensions"]) - 1)
    complex_extremum = kind(eqn.invars[0]) == "complex" and eqn.primitive.name != "reduce_window_sum"
    return Work(elementwise=steps * (9 if complex_extremum else 1))


def select_and_scatter_add(eqn: JaxprEqn) -> Work:
    """Cost for each element of the source: a comparison a place of the window but one, and an addition."""
    return Work(elementwise=size(eqn.invars[0]) * math.prod(eqn.params["window_dimensions"]))


def select_and_gather_add(eqn: JaxprEqn) -> Work:
    """Cost for each result: a comparison and two choices a place of the window but one."""
    steps = size(eqn.outvars[0]) * (math.prod(eqn.params["window_dimensions"]) - 1)
    return Work(elementwise=3 * steps)


RULES: dict[str, Rule] = {
    "reduce": reduce_,
    "reduce_window": reduce_window,
    **dict.fromkeys(("reduce_window_sum", "reduce_window_max", "reduce_window_min"), window),
    "select_and_scatter_add": select_and_scatter_add,
    "select_and_gather_add": select_and_gather_add,
}
