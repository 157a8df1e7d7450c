"""Dots and convolutions: a multiplication and an addition for each product, so 2·|out|·k."""

import math

from jax.extend.core import JaxprEqn

from refgrad.cost.primitives.rule import Rule, Work, kind
from refgrad.jaxpr.avals import shape_of, size


def dot_general(eqn: JaxprEqn) -> Work:
    """2·|out|·k, k the product of the contracted dimensions."""
    (contracting, _), _ = eqn.params["dimension_numbers"]
    shape = shape_of(eqn.invars[0])
    return Work(matmul=2 * size(eqn.outvars[0]) * math.prod(shape[axis] for axis in contracting))


def scaled_dot(eqn: JaxprEqn) -> Work:
    """A dot; each element of both operands and its scale is converted, and one multiplied by the other."""
    dot = dot_general(eqn)
    return dot._replace(elementwise=3 * (size(eqn.invars[0]) + size(eqn.invars[1])))


def ragged_dot_general(eqn: JaxprEqn) -> Work:
    """Cost of a dot in which every row meets the matrix of its own group and no other.

    XLA's CPU lowering multiplies with every group's matrix and masks, which is that many times more.
    """
    dims = eqn.params["ragged_dot_dimension_numbers"]
    (contracting, _), _ = dims.dot_dimension_numbers
    lhs = shape_of(eqn.invars[0])
    out, k = size(eqn.outvars[0]), math.prod(lhs[axis] for axis in contracting)
    groups = shape_of(eqn.invars[2])[-1]
    grouped_result = not dims.rhs_group_dimensions and set(dims.lhs_ragged_dimensions) <= set(contracting)
    return Work(matmul=2 * (out // groups if grouped_result else out) * k)


def convolution(eqn: JaxprEqn) -> Work:
    """2 for each product of an input element with a kernel tap; padding and dilation holes meet none.

    Complex ones are lowered, except for TPU, as three real convolutions of sums of their parts.
    """
    x, kernel = eqn.invars
    (out,) = eqn.outvars
    p = eqn.params
    dims = p["dimension_numbers"]
    batch, features, *spatial = (shape_of(x)[axis] for axis in dims.lhs_spec)
    outputs, _, *window = (shape_of(kernel)[axis] for axis in dims.rhs_spec)
    taps = math.prod(
        _taps(*sizes)
        for sizes in zip(
            spatial,
            window,
            (shape_of(out)[axis] for axis in dims.out_spec[2:]),
            p["window_strides"],
            p["padding"],
            p["lhs_dilation"],
            p["rhs_dilation"],
            strict=True,
        )
    )
    pairs = (features // p["feature_group_count"]) * outputs * (batch // p["batch_group_count"])
    flops = 2 * pairs * taps
    if kind(x) != "complex":
        return Work(matmul=flops)
    return Work(matmul=3 * flops, elementwise=3 * size(x) + 4 * size(kernel) + 3 * size(out))


def _taps(
    n: int, window: int, out: int, stride: int, padding: tuple[int, int], base_dilation: int, window_dilation: int
) -> int:
    """Count the pairs (output position, tap) along one axis that fall on an element of the input."""
    last, met = (n - 1) * base_dilation, 0
    for tap in range(window):
        first = tap * window_dilation - padding[0]
        positions = (first + i * stride for i in range(out))
        met += sum(0 <= at <= last and at % base_dilation == 0 for at in positions)
    return met


RULES: dict[str, Rule] = {
    "dot_general": dot_general,
    "scaled_dot": scaled_dot,
    "ragged_dot_general": ragged_dot_general,
    "conv_general_dilated": convolution,
}
