"""Dots and convolutions: a multiplication and an addition for each product, so 2·|out|·k."""

import math

from jax.extend.core import JaxprEqn

from refgrad.cost.primitives.rule import Rule, Work, size


def dot_general(eqn: JaxprEqn) -> Work:
    """2·|out|·k, k the product of the contracted dimensions."""
    (contracting, _), _ = eqn.params["dimension_numbers"]
    shape = eqn.invars[0].aval.shape
    return Work(matmul=2 * size(eqn.outvars[0]) * math.prod(shape[axis] for axis in contracting))


RULES: dict[str, Rule] = {"dot_general": dot_general}
