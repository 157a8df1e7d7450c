"""Products of matrices and what is one: contractions, convolutions, Fourier transforms."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from flint import acb, arb
from jax.extend.core import JaxprEqn

from refgrad.jaxpr.avals import dtype_of
from refgrad.verify.exact.arrays import Array, elementwise, full, matmul, move, take
from refgrad.verify.exact.primitives.elementwise import as_array
from refgrad.verify.exact.primitives.reductions import window_ids
from refgrad.verify.exact.scalars.table import SCALARS, TO_COMPLEX


def contract(a: Array, b: Array, contracting: Any, batch: Any) -> Array:
    """Return the contraction: axes (batch…, free of a…, free of b…)."""
    parts = []
    for x, over, along, last in ((a, contracting[0], batch[0], True), (b, contracting[1], batch[1], False)):
        free = [d for d in range(len(x.shape)) if d not in (*over, *along)]
        sizes = [[x.shape[d] for d in ds] for ds in (along, free, over)]
        lengths = [math.prod(s) for s in sizes]
        order = [*along, *free, *over] if last else [*along, *over, *free]
        shape = (lengths[0], lengths[1], lengths[2]) if last else (lengths[0], lengths[2], lengths[1])
        parts.append((move(lambda d, o=tuple(order), s=shape: d.transpose(o).reshape(s), x), sizes))
    (left, (along, rows, _)), (right, (_, columns, _)) = parts
    return move(lambda d: d.reshape((*along, *rows, *columns)), matmul(left, right))


def dot_general(eqn: JaxprEqn, a: Any, b: Any) -> Any:
    """A contraction; of integers exactly."""
    out = contract(as_array(a), as_array(b), *eqn.params["dimension_numbers"])
    if isinstance(a, Array) or isinstance(b, Array):
        return out
    return np.vectorize(lambda x: int(x.unique_fmpz()), otypes=[object])(out.data).astype(dtype_of(eqn.outvars[0]))


def convolution(eqn: JaxprEqn, x: Array, kernel: Array) -> Array:
    """Patches of x times the kernel, group by group."""
    p, n = eqn.params, eqn.params["dimension_numbers"]
    x = move(lambda d: d.transpose(n.lhs_spec), as_array(x))
    kernel = move(lambda d: d.transpose(n.rhs_spec), as_array(kernel))
    groups, batches = p["feature_group_count"], p["batch_group_count"]
    B, C, *space = x.shape
    K, c, *window = kernel.shape
    ids = window_ids(space, window, p["window_strides"], p["padding"], p["lhs_dilation"], p["rhs_dilation"])
    where = ids.shape[: len(space)]
    ids = ids.reshape(math.prod(where), math.prod(window))
    size = math.prod(space)
    image = np.arange(B * C).reshape(B, C)[:, :, None, None] * size
    patches = take(x, np.where(ids >= 0, image + ids, -1))  # (B, C, positions, window)
    parts = groups * batches
    b, positions = B // batches, len(ids)

    def rows(d: np.ndarray) -> np.ndarray:
        d = d.reshape(batches, b, groups, c, positions, -1).transpose(0, 2, 1, 4, 3, 5)
        return d.reshape(parts, b * positions, -1)

    product = matmul(
        move(rows, patches), move(lambda d: d.reshape(parts, K // parts, -1).transpose(0, 2, 1), kernel)
    )  # (parts, b·positions, K/parts)

    def placed(d: np.ndarray) -> np.ndarray:
        d = d.reshape(parts, b, positions, K // parts).transpose(1, 0, 3, 2).reshape(b, K, *where)
        return d.transpose(np.argsort(n.out_spec))

    return move(placed, product)


def fft(eqn: JaxprEqn, x: Array) -> Array:
    """Sums over roots of unity, axis by axis; a real side is completed by symmetry, or cut off."""
    lengths, kind = eqn.params["fft_lengths"], str(getattr(eqn.params["fft_type"], "name", eqn.params["fft_type"]))
    inverse = kind in ("IFFT", "IRFFT")
    first = len(x.shape) - len(lengths)
    if kind == "RFFT":
        x = elementwise(TO_COMPLEX, x)
    for i, n in enumerate(lengths[:-1]):
        x = _transform(x, first + i, n, inverse)
    if kind == "IRFFT":
        return _real_inverse(x, lengths[-1])
    x = _transform(x, len(x.shape) - 1, lengths[-1], inverse)
    return x[..., : lengths[-1] // 2 + 1] if kind == "RFFT" else x


def _transform(x: Array, axis: int, n: int, inverse: bool) -> Array:
    """Return the discrete Fourier transform of one axis."""
    k = np.arange(n)
    return _along(x, axis, _roots(np.outer(k, k), n, inverse) * (acb(1) / n if inverse else acb(1)))


def _along(x: Array, axis: int, matrix: np.ndarray) -> Array:
    rows = move(lambda d: np.moveaxis(d, axis, -1).reshape(1, -1, d.shape[axis]), x)
    others = tuple(n for d, n in enumerate(x.shape) if d != axis)
    out = matmul(rows, Array(matrix[None]))
    return move(lambda d: np.moveaxis(d.reshape((*others, matrix.shape[1])), -1, axis), out)


def _roots(powers: np.ndarray, n: int, inverse: bool) -> np.ndarray:
    sign = 2 if inverse else -2
    table = np.array([acb(arb(sign * k) / n).exp_pi_i() for k in range(n)], object)
    return table[powers % n]


def _real_inverse(x: Array, n: int) -> Array:
    """Return Re Σ w_k x_k e^{2πi jk/n} / n, where w_k is 2 for what stands for two frequencies."""
    k = np.arange(x.shape[-1])
    weights = np.where((k == 0) | (2 * k == n), 1, 2).astype(object)[:, None]
    matrix = _roots(np.outer(k, np.arange(n)), n, inverse=True) * weights * (acb(1) / n)
    return elementwise(SCALARS["real"], _along(x, len(x.shape) - 1, matrix))


def ragged_dot(eqn: JaxprEqn, a: Array, b: Array, sizes: np.ndarray) -> Array:
    """Rows of a (m, k) times the matrix of b (g, k, n) that their group has; 0 beyond the groups."""
    n = eqn.params["ragged_dot_dimension_numbers"]
    if (n.dot_dimension_numbers, n.lhs_ragged_dimensions, n.rhs_group_dimensions) != (
        (((1,), (1,)), ((), ())),
        (0,),
        (0,),
    ):
        raise NotImplementedError("a ragged dot other than (m, k) by (g, k, n)")
    group = np.repeat(np.arange(len(sizes)), sizes)[: a.shape[0]]
    out = matmul(a[: len(group), None], b[group])
    missing = Array(full((a.shape[0] - len(group), b.shape[2])))
    return move(lambda d, z: np.concatenate([d[:, 0], z]), out, missing)


RULES: dict[str, Callable[..., Any]] = {
    "dot_general": dot_general,
    "conv_general_dilated": convolution,
    "fft": fft,
    "ragged_dot_general": ragged_dot,
}
