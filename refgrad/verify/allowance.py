"""Allowed error of a right rule: c·ε·√n, with one c for every rule, dtype and shape.

ε is the leaf's machine epsilon. n is the longest reduction that feeds the leaf in the traced backward
program: the error of a sum of n rounded terms grows like √n. A reduction carried out in another precision ε′
counts as the length that does the same harm in the leaf's own, n·(ε′/ε)²: float32 accumulation earns a
bfloat16 leaf no slack, and a bfloat16 step upstream of a float32 leaf earns it what it costs.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, JaxprEqn

from refgrad.jaxpr.analysis import Forward
from refgrad.jaxpr.avals import is_array, is_float
from refgrad.jaxpr.calls import Bodies, Body
from refgrad.jaxpr.programs import directly_inside
from refgrad.jaxpr.versions import nondiff_argnums

C = 4.0  # the one constant of the project


def allowance(dtype, n: int, c: float = C) -> float:
    """Return c·ε(dtype)·√n, the allowed error of a right rule relative to the largest entry of the leaf.

    Args:
      dtype: the leaf's dtype.
      n: the longest reduction that feeds the leaf, as from `longest_reduction`.
      c: the factor, one for all rules.

    Returns:
      A float.

    Raises:
      ValueError: for a dtype that is not a floating one.

    Example:
      >>> from refgrad.verify import allowance
      >>> allowance("float32", n=16) == 4 * allowance("float32", n=1)
      True
    """
    return c * float(jnp.finfo(dtype).eps) * math.sqrt(n)


def known_tolerance(tolerance: float | None) -> None:
    """Raise ValueError for a tolerance that is not a relative error."""
    if tolerance is not None and not 0 < tolerance < 1:
        raise ValueError(
            f"tolerance is {tolerance!r}, but must be above 0 and below 1: the relative error up to which the rule is "
            "meant to be right, such as 1e-5"
        )


def longest_reduction(f, *args) -> tuple[int, ...]:
    """Return the longest reduction that feeds each cotangent of `f`.

    Args:
      f: the function; it is traced, not run.
      *args: its arguments, concrete or abstract.

    Returns:
      One integer per leaf of `args`, in leaf order. Leaves without a cotangent (integers, keys, static values,
      `nondiff_argnums`) get 1.

    Raises:
      Exception: everything that JAX raises where `f` has no reverse mode.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad.verify import longest_reduction
      >>> longest_reduction(jnp.matmul, jnp.ones((2, 3)), jnp.ones((3, 5)))  # dx sums over 5 columns, dw over 2 rows
      (5, 2)
    """
    skipped = set(nondiff_argnums(f))
    leaves, tree = jax.tree.flatten(args)
    position = [i for i, arg in enumerate(args) for _ in jax.tree.leaves(arg)]
    floats = [i for i, x in enumerate(leaves) if is_float(x) and position[i] not in skipped]
    others = [i for i, x in enumerate(leaves) if is_array(x) and i not in floats and position[i] not in skipped]

    def backward(diff, rest):
        def call(diff):
            full = list(leaves)
            for i, x in (*zip(floats, diff, strict=True), *zip(others, rest, strict=True)):
                full[i] = x
            out = jax.tree.leaves(f(*jax.tree.unflatten(tree, full)))
            return [x for x in out if is_float(x)], [x for x in out if not is_float(x)]

        out, pull, _ = jax.vjp(call, diff, has_aux=True)
        return pull([jnp.full_like(x, 0.5) for x in out])[0]

    abstract = [leaves[i] for i in floats], [leaves[i] for i in others]
    lengths = dict(zip(floats, reductions(jax.make_jaxpr(backward)(*abstract)), strict=True))
    return tuple(lengths.get(i, 1) for i in range(len(leaves)))


def reductions(program: ClosedJaxpr) -> tuple[int, ...]:
    """Return the longest reduction that feeds each output of a traced program, in its own precision (≥ 1)."""
    harms = _Harm({}).run(program, [0.0] * len(program.jaxpr.invars))
    return tuple(
        max(1, math.ceil(harm / own)) if (own := _eps(v.aval) ** 2) else 1
        for v, harm in zip(program.jaxpr.outvars, harms, strict=True)
    )


class _Harm(Forward[float]):
    """The largest ε²·n of the operations upstream of each variable; `mesh` has the sizes of the axes around it."""

    unknown = 0.0

    def __init__(self, mesh: Mapping[str, int]) -> None:
        self.mesh = mesh

    def join(self, one: float, other: float) -> float:
        return max(one, other)

    def under(self, condition: float, result: float) -> float:
        """A condition decides which value exists, not how far it is off; trips of a `while` count once.

        A fixed point forgets its earlier errors.
        """
        del condition
        return result

    def repeated(self, body: Body, entering: list[float]) -> list[float]:
        """Count the additions of a body to a carry once per trip, as the same sum does outside a loop."""
        own = self.at_any_trip(body, [0.0] * len(entering))
        return [max(a, (body.trips or 0) * b) for a, b in zip(entering, own, strict=True)]

    def carried(self, entering: float, result: float) -> float:
        """The last trip decides: a carry that is overwritten forgets its earlier errors."""
        del entering
        return result

    def within(self, bodies: Bodies) -> "_Harm":
        return _Harm({**self.mesh, **(bodies.mesh or {})})

    def equation(self, eqn: JaxprEqn, entering: list[float]) -> list[float]:
        own, worst = _length(eqn, self.mesh), max(entering, default=0.0)
        return [max(worst, _eps(v.aval) ** 2 * own) if _eps(v.aval) else 0.0 for v in eqn.outvars]


def _length(eqn: JaxprEqn, mesh: Mapping[str, int]) -> int:
    """Return the number of terms that one entry of the equation's output sums (1 where it sums nothing)."""
    name, params = eqn.primitive.name, eqn.params
    ins: list[Any] = [v.aval for v in eqn.invars]
    outs: list[Any] = [v.aval for v in eqn.outvars]
    if name == "dot_general":
        (axes, _), _ = params["dimension_numbers"]
        return max(1, math.prod(ins[0].shape[a] for a in axes))
    if name in ("reduce_sum", "reduce_prod", "reduce"):
        return max(1, ins[0].size // max(1, outs[0].size))
    if name in ("cumsum", "cumprod", "cumlogsumexp"):
        return max(1, ins[0].shape[params["axis"]])
    if name == "conv_general_dilated":
        numbers = params["dimension_numbers"]
        return max(1, ins[1].size // max(1, ins[1].shape[numbers.rhs_spec[0]]))
    if name in ("scatter-add", "scatter_add", "scatter-mul", "scatter_mul"):
        return max(1, math.prod(ins[1].shape[:-1]))
    if name in ("reduce_window_sum", "select_and_scatter_add"):
        return max(1, math.prod(params["window_dimensions"]))
    if name in ("psum", "psum2", "psum_invariant", "psum_scatter", "reduce_scatter"):
        return math.prod(mesh.get(a, 1) for a in _axes(params))
    if name in _FACTORISATIONS:
        return max(1, *(max(a.shape[-2:], default=1) for a in ins))
    if name == "fft":
        return max(1, math.prod(params["fft_lengths"]))
    if name in ("pure_callback", "io_callback", "ffi_call", "custom_call"):
        return max(1, *(a.size for a in ins), 1)  # unseen: at most, all of an operand is added up
    return _opaque(eqn, mesh)


_FACTORISATIONS = frozenset(
    ("cholesky", "eig", "eigh", "householder_product", "lu", "qr", "schur", "svd", "triangular_solve")
)


def _axes(params) -> tuple:
    axes = params.get("axes", params.get("axis_name", ()))
    return axes if isinstance(axes, tuple) else (axes,)


def _opaque(eqn: JaxprEqn, mesh: Mapping[str, int]) -> int:
    """Data flow not followed (a Pallas kernel, a solver): its longest inner reduction × its grid."""
    grid = [g for g in getattr(eqn.params.get("grid_mapping"), "grid", ()) if isinstance(g, int)]
    inner = (_length(e, mesh) * e.params.get("length", 1) for e in directly_inside(eqn))
    return math.prod(grid) * max(inner, default=1)


def _eps(aval) -> float:
    """Machine epsilon of an abstract value; 0 where it has none (integers, booleans, keys, references)."""
    dtype = getattr(aval, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
        return 0.0
    return float(jnp.finfo(dtype).eps)
