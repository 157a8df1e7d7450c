"""D3 on the matrix product: its Jacobian's size (D3.13), the only products that fit (D3.14), slips in print (D3.17)."""

import itertools
from collections.abc import Iterator
from functools import cache
from typing import Any

import jax
import numpy as np

from refgrad import cost
from refgrad.claims._ledger import Case, deferred
from refgrad.claims._oracle import at, at_sizes, gradients, normal, value, weighted
from refgrad.claims._rows import claims
from refgrad.ops import operations

OPS = operations("derived")
SIZES = ({"N": 3, "D": 5, "M": 4}, {"N": 6, "D": 2, "M": 7}, {"N": 5, "D": 8, "M": 3})
WITH_EQUAL = ({"N": 4, "D": 5, "M": 5}, {"N": 5, "D": 5, "M": 3}, {"N": 6, "D": 2, "M": 6})
LARGE = {"N": 64, "D": 4096, "M": 4096}
# "Roughly 250,000" may be off by a twentieth; 6.25e10 and 250 GB are held to the digits that are printed.
BOUNDS = {"roughly": 0.05}


@cache
def _product(N: int, D: int, M: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values of y = x w with an upstream gradient, and the truth about them."""
    x, w, dy = normal(0, N, D), normal(1, D, M), normal(2, N, M)
    dx, dw = gradients(weighted(OPS.matmul, dy), x, w)
    Jx = value(jax.jacobian(OPS.matmul), x, w)  # (N, M, N, D)
    n, d = N // 2, D // 2
    values = {"x": x, "w": w, "dy": dy, "n": n, "d": d, "dL_dx": dx[n, d], "dy_dx": Jx[:, :, n, d]}
    return values, {"x": dx, "w": dw, "entry": np.asarray(dx[n, d]), "local": Jx[n, :, n, d]}


truth = at_sizes(SIZES)(_product)


def fitting() -> Iterator[Case]:
    """Count the products of the upstream gradient and the other matrix, transposed or not, with a gradient's shape."""
    for sizes in (*SIZES, *WITH_EQUAL):
        values, _ = _product(**sizes)
        shapes = {name: np.shape(values[name]) for name in ("x", "w", "dy")}
        counts = {f"fit_{name}": _count(shapes["dy"], shapes[other], shapes[name]) for name, other in ("xw", "wx")}
        yield Case(at(sizes), {**sizes, **counts})


def _count(upstream: tuple[int, ...], other: tuple[int, ...], wanted: tuple[int, ...]) -> int:
    """Ordered products of two matrices, each as it is or transposed, that exist and have the shape `wanted`."""
    found = 0
    for one, two in itertools.product((upstream, upstream[::-1]), (other, other[::-1])):
        found += sum(a[1] == b[0] and (a[0], b[1]) == wanted for a, b in ((one, two), (two, one)))
    return found


def same_shape() -> Iterator[Case]:
    """The shapes of both arguments and of their gradients."""
    for sizes in SIZES:
        values, truth = _product(**sizes)
        pairs = {f"axes_{name}": np.shape(values[name]) for name in ("x", "w")}
        pairs |= {f"axes_d{name}": np.shape(truth[name]) for name in ("x", "w")}
        yield Case(at(sizes), pairs)


@cache
def _sizes_of(N: int, D: int, M: int) -> dict[str, int]:
    """Elements and bytes of the explicit Jacobian in float32, and residual bytes of the rule, from shapes alone."""
    shape = jax.ShapeDtypeStruct
    x, w = shape((N, D), np.float32), shape((D, M), np.float32)
    jacobian = jax.eval_shape(jax.jacobian(OPS.matmul.fun), x, w)
    kept = cost.residuals(OPS.matmul, x, w).argument_bytes
    return {"elements": jacobian.size, "bytes": jacobian.size * jacobian.dtype.itemsize, "rule": kept}


@deferred
def large(truth: str, small: bool = False) -> Iterator[Case]:
    """D3's own sizes, and `small` ones; without a truth, the formula is a statement about them."""
    for sizes in (LARGE, *SIZES * small):
        yield Case(at(sizes), {**sizes, **BOUNDS}, _sizes_of(**sizes)[truth] if truth else True)


def sides() -> Iterator[Case]:
    """The argument of y = x w that is D × M: the Jacobian printed beside ∂y/∂x belongs to it."""
    for sizes in SIZES:
        values, _ = _product(**sizes)
        wanted = (sizes["D"], sizes["M"])
        yield Case(at(sizes), {"argument": next(name for name in ("x", "w") if np.shape(values[name]) == wanted)})


@at_sizes([{"N": sizes["N"], "M": sizes["M"]} for sizes in SIZES])
def vectors(N: int, M: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A map from N to M numbers: its Jacobian with ∂y_m/∂x_n at [n, m]; and of a scalar map, the gradient."""
    A, x, dz = normal(3, M, N), normal(4, N), normal(5, M)

    def f(x: Any) -> Any:
        return jax.numpy.tanh(A @ x)

    J = value(jax.jacobian(f), x)  # row m, column n
    gradient = value(jax.grad(lambda x: f(x).sum()), x)
    entries = np.array([[J[m, n] for m in range(M)] for n in range(N)])  # [n, m]
    pulled = value(lambda x, dz: jax.vjp(f, x)[1](dz)[0], x, dz)
    truth = {"layout": entries, "pullback": pulled, "components": gradient.size}
    return {"J_row_m_column_n": J, "J": entries, "dz": dz}, truth


CLAIMS = claims(__name__)
