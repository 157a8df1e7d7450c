"""Two programs compared, equation by equation."""

from itertools import zip_longest
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from refgrad.jaxpr.calls import callee
from refgrad.jaxpr.versions import closed, opened


def alike(one: ClosedJaxpr | Jaxpr, other: ClosedJaxpr | Jaxpr) -> bool:
    """Return True where two programs differ in shapes alone: the same primitives in order, with the same numbers."""
    for a, b in zip_longest(opened(one).eqns, opened(other).eqns):
        if a is None or b is None or a.primitive is not b.primitive:
            return False
        numbers = ([v.val if isinstance(v, Literal) else np.nan for v in eqn.invars] for eqn in (a, b))
        if not all(np.array_equal(x, y, equal_nan=True) for x, y in zip_longest(*numbers, fillvalue=np.inf)):
            return False
        called = callee(a), callee(b)
        if called[0] and called[1]:
            if not alike(called[0], called[1]):
                return False
        elif not all(_same(a.params[key], b.params[key]) for key in a.params if not _is_shape(a, key)):
            return False
    return all(np.array_equal(a, b) for a, b in zip_longest(closed(one).consts, closed(other).consts))


def _is_shape(eqn: JaxprEqn, parameter: str) -> bool:
    """Return True for a parameter that is the shape of the result, which changes with a stack of operands."""
    return (eqn.primitive.name, parameter) in {("broadcast_in_dim", "shape"), ("reshape", "new_sizes")}


def _same(one: Any, other: Any) -> bool:
    """Return True where two parameters of an equation are equal, programs among them alike."""
    if isinstance(one, ClosedJaxpr | Jaxpr):
        return alike(one, other)
    if isinstance(one, tuple) and one and isinstance(one[0], ClosedJaxpr | Jaxpr):  # the branches of a cond
        return all(map(alike, one, other))
    return bool(np.array_equal(one, other)) if isinstance(one, np.ndarray) else bool(one == other)
