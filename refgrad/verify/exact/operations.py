"""Estimates of scalar operations, from shapes alone, and the bound on them.

The unit is one multiply-add of two balls inside flint's product of matrices: about 50 ns.
"""

import math
from collections.abc import Sequence
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from refgrad.jaxpr.analysis import Backward
from refgrad.jaxpr.avals import is_array, is_float, shape_of, size
from refgrad.jaxpr.calls import Form, bodies_of
from refgrad.jaxpr.programs import line
from refgrad.jaxpr.versions import opened
from refgrad.verify.exact.primitives import linalg, reductions
from refgrad.verify.exact.primitives.elementwise import ALIASES
from refgrad.verify.exact.scalars.analytic import Analytic
from refgrad.verify.exact.scalars.arithmetic import Arithmetic
from refgrad.verify.exact.scalars.decisions import Decision, Select
from refgrad.verify.exact.scalars.functions import Function
from refgrad.verify.exact.scalars.table import SCALARS

# units, as measured at 128 bits
EQUATION = 1000  # whatever its size
MOVED, INTEGER = 1, 0.1  # an entry that NumPy moves, or computes
SUMMED = 5
LIFTED = 25  # a number made a ball
WHOLE, ARITHMETIC, COMPARED, ELEMENTARY, SPECIAL = 3, 50, 40, 80, 400  # an entry of an elementwise function
ELIMINATED = 25  # a step of a factorization
SPECIALS = {"digamma", "erf", "erf_inv", "erfc", "lgamma", "pow", "cumlogsumexp"}
ADDED = {"reduce_sum", "cumsum", "reduce_window_sum", "reduce_and", "reduce_or", "reduce_xor"}
SORTS = {"sort", "top_k", "approx_top_k"}


class OverBudget(RuntimeError):
    """The computation takes more operations than it may.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad.verify.exact import Limits, OverBudget, exact
      >>> try:
      ...     exact(jnp.matmul, jnp.ones((9, 9)), jnp.ones((9, 9)), limits=Limits(operations=10)).value
      ... except OverBudget:
      ...     print("too large")
      too large
    """

    def __init__(self, what: str, spent: float, most: float) -> None:
        super().__init__(
            f"{what} takes {spent:.3g} scalar operations, more than {most:.3g}: "
            "give smaller arguments, or a higher Limits(operations=…)"
        )


class Budget:
    """A bound on the operations of one evaluation."""

    def __init__(self, most: float) -> None:
        self.most, self.spent = most, 0.0

    def spend(self, eqn: JaxprEqn) -> None:
        """Count one equation. Raises OverBudget beyond the bound."""
        self.spent += operations_of(eqn)
        if self.spent > self.most:
            place = line(eqn) or "an unknown line"
            raise OverBudget(f"one evaluation up to {eqn.primitive.name} at {place}", self.spent, self.most)


def operations(program: ClosedJaxpr | Jaxpr) -> float:
    """Return an estimate of the operations of a program on balls, a loop of unknown length counted once."""
    return _Operations().walk(program, (True,) * len(opened(program).outvars))[0]


def operations_of(eqn: JaxprEqn) -> float:
    """Return an estimate of the operations of one equation without the programs that it runs."""
    return EQUATION + _work(eqn)


def operations_within(eqn: JaxprEqn) -> float:
    """Return an estimate of the operations of one equation and of the programs that it runs."""
    return _Operations().equation(eqn, (True,) * len(eqn.outvars), None)[0]


def weight_of(f: Function) -> float:
    """Return the operations of one entry of an elementwise function."""
    if isinstance(f, Analytic):
        special = f.derivative is None or any(f is SCALARS[name] for name in SPECIALS & SCALARS.keys())
        return SPECIAL if special else ELEMENTARY
    if isinstance(f, Arithmetic):
        return WHOLE if f.whole else ARITHMETIC
    return COMPARED if isinstance(f, Decision | Select) else ARITHMETIC


def _work(eqn: JaxprEqn) -> float:
    name = eqn.primitive.name
    made, given = (sum(size(v) for v in vs if is_array(v.aval)) for vs in (eqn.outvars, eqn.invars))
    if not any(is_float(v.aval) for v in (*eqn.invars, *eqn.outvars)):
        return INTEGER * (made + given)
    name = ALIASES.get(name, name)
    if name in ("dot_general", "ragged_dot_general", "conv_general_dilated"):
        return _products(eqn, made) + SUMMED * (made + given)
    if name == "fft":
        return made * 4 * sum(eqn.params["fft_lengths"])
    if name in linalg.RULES:
        return given * max(shape_of(eqn.invars[0])[-1:], default=1) * ELIMINATED
    if name in SPECIALS:
        return made * SPECIAL
    if name in SCALARS:
        return made * weight_of(SCALARS[name])
    if name in ADDED:
        return _windowed(eqn, made, given) * SUMMED
    if name in SORTS:
        axis = eqn.params.get("dimension", eqn.params.get("axis", -1))
        return given * COMPARED * (2 + math.log2(1 + shape_of(eqn.invars[0])[axis]))
    if name in reductions.RULES or name in reductions.WITH_PROGRAMS:
        return _windowed(eqn, made, given) * COMPARED
    if name == "integer_pow" and eqn.params["y"] == 2:
        return made * WHOLE
    if name in ("integer_pow", "select_n", "round", "polynomial"):
        return made * ARITHMETIC
    return MOVED * (made + given)


def _products(eqn: JaxprEqn, made: int) -> float:
    if eqn.primitive.name == "conv_general_dilated":
        kernel = shape_of(eqn.invars[1])
        out_features = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
        return made * math.prod(kernel) / max(1, out_features)
    shape = shape_of(eqn.invars[0])
    if eqn.primitive.name == "ragged_dot_general":
        return made * shape[-1]
    return made * math.prod(shape[d] for d in eqn.params["dimension_numbers"][0][0])


def _windowed(eqn: JaxprEqn, made: int, given: int) -> float:
    window = eqn.params.get("window_dimensions")
    return given if window is None else made * math.prod(window)


class _Operations(Backward[bool, float]):
    """Every equation runs, needed or not."""

    nothing, everything = False, True

    def join(self, one: bool, other: bool) -> bool:
        return one or other

    def runs(self, eqn: JaxprEqn, results: tuple[bool, ...]) -> bool:
        del eqn, results
        return True

    def equation(self, eqn: JaxprEqn, results: tuple[bool, ...], facts: Any) -> tuple[float, Sequence[bool]]:
        bodies = bodies_of(eqn)
        everything = (True,) * len(eqn.invars)
        if bodies is None or bodies.form in (Form.OPAQUE, Form.DEVICES):
            return operations_of(eqn), everything
        payloads, _ = self.bodies(eqn, bodies, results, facts)
        inside = [
            payload * (1 if body.trips is None else body.trips)
            for payload, body in zip(payloads, bodies.all, strict=True)
        ]
        columns = sum(map(size, eqn.outvars)) if bodies.form is Form.SOLVE else 1
        return columns * (max(inside) if bodies.form is Form.BRANCHES else sum(inside)), everything

    def gather(self, payloads: list[float]) -> float:
        return sum(payloads)
