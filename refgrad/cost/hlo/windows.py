"""Sliding windows of HLO: how often a convolution multiplies, and how often a reduce-window applies its function."""

import re
from math import prod
from typing import NamedTuple

from refgrad.cost.hlo.parse import Instruction, Shape


class Dimension(NamedTuple):
    """One dimension of a window: the defaults are those that HLO text leaves out."""

    size: int
    stride: int = 1
    pad_low: int = 0
    pad_high: int = 0
    base_dilation: int = 1
    window_dilation: int = 1


def window(instruction: Instruction) -> list[Dimension]:
    """The dimensions of `window={size=3x3 stride=2x2 pad=0_1x0_1 lhs_dilate=… rhs_dilate=…}`."""
    fields = dict(re.findall(r"(\w+)=(\S+)", instruction.attribute("window") or ""))
    sizes = [int(s) for s in fields["size"].split("x")] if "size" in fields else []
    rank = len(sizes)

    def each(key: str, default: str) -> list[str]:
        return fields[key].split("x") if key in fields else [default] * rank

    pads = [tuple(map(int, pad.split("_"))) for pad in each("pad", "0_0")]
    strides, base, kernel = (map(int, each(k, "1")) for k in ("stride", "lhs_dilate", "rhs_dilate"))
    return [
        Dimension(size, stride, low, high, lhs, rhs)
        for size, stride, (low, high), lhs, rhs in zip(sizes, strides, pads, base, kernel, strict=True)
    ]


def convolution_taps(instruction: Instruction, lhs: Shape, rhs: Shape) -> int:
    """Multiplications of a convolution: only taps that meet a real input element, not padding and not a hole."""
    labels = instruction.attribute("dim_labels") or ""
    found = re.fullmatch(r"([^_]+)_([^_]+)->(.+)", labels)
    if found is None:
        raise ValueError(f"dim_labels={labels!r} of convolution {instruction.name!r} are not of the form lhs_rhs->out")
    left, right, out = found.groups()
    dimensions = window(instruction)
    taps = prod(
        _valid_positions(
            dimension,
            lhs.dims[left.index(str(k))],
            rhs.dims[right.index(str(k))],
            instruction.shape.dims[out.index(str(k))],
        )
        for k, dimension in enumerate(dimensions)
    )
    groups = int(instruction.attribute("feature_group_count") or 1)
    batch_groups = int(instruction.attribute("batch_group_count") or 1)
    features_in = lhs.dims[left.index("f")] // groups
    batch = lhs.dims[left.index("b")] // batch_groups
    return features_in * instruction.shape.dims[out.index("f")] * batch * taps


def _valid_positions(d: Dimension, inputs: int, kernel: int, outputs: int) -> int:
    """Pairs (tap, output) of one dimension whose input index exists.

    For tap k the output o reads position o·stride + k·window_dilation − pad_low of the dilated input, which holds
    `inputs` real elements, every base_dilation-th one.
    """
    last = (inputs - 1) * d.base_dilation
    count = 0
    for k in range(kernel):
        offset = k * d.window_dilation - d.pad_low
        first, end = _ceil_div(-offset, d.stride), (last - offset) // d.stride
        low, high = max(first, 0), min(end, outputs - 1)
        if d.base_dilation == 1:
            count += max(high - low + 1, 0)
        else:
            count += sum((o * d.stride + offset) % d.base_dilation == 0 for o in range(low, high + 1))
    return count


def reduce_window_applications(instruction: Instruction, outputs: int) -> int:
    """Return the number of applications of a reduce-window's function: (window − 1) for each output element.

    XLA knows one exception: a window that covers the whole dimension from every position (one padded dimension,
    low = high = n − 1, size 2n − 1) counts as one reduction that is broadcast back.
    """
    dimensions = window(instruction)
    wide = [d for d in dimensions if d.size != 1]
    padded = [d for d in dimensions if d.pad_low or d.pad_high]
    if len(wide) == len(padded) == 1 and instruction.shape.parts is None:
        spans = [
            n
            for d, n in zip(dimensions, instruction.shape.dims, strict=True)
            if d.size != 1 and 0 != d.pad_low == d.pad_high == n - 1 and d.size == 2 * d.pad_low + 1
        ]
        if spans:
            return outputs // spans[0] + spans[0] - 1
    return (prod(d.size for d in dimensions) - 1) * outputs


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)
