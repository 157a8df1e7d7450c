"""Model FLOPs utilisation, and the peak rates it divides by.

A peak is the vendor's dense matrix rate (no structured sparsity) of one device at the given precision. It is a
datasheet's figure, not a measurement.
"""

from typing import NamedTuple


class Peak(NamedTuple):
    """A device's dense peak in FLOP/s at one precision, and where the figure is published."""

    device: str
    dtype: str
    flops_per_second: float
    source: str


_NVIDIA = "NVIDIA, {} datasheet, tensor cores, dense"
_TPU = "Google Cloud documentation, TPU {}, peak compute per chip"

PEAKS: tuple[Peak, ...] = (
    Peak("V100 SXM", "float16", 125e12, _NVIDIA.format("V100")),
    Peak("T4", "float16", 65e12, _NVIDIA.format("T4")),
    Peak("A100", "bfloat16", 312e12, _NVIDIA.format("A100")),
    Peak("A100", "tf32", 156e12, _NVIDIA.format("A100")),
    Peak("A100", "float32", 19.5e12, "NVIDIA, A100 datasheet, without tensor cores"),
    Peak("H100 PCIe", "bfloat16", 756e12, _NVIDIA.format("H100")),
    Peak("H100 SXM", "bfloat16", 989.4e12, _NVIDIA.format("H100")),
    Peak("H100 SXM", "tf32", 494.7e12, _NVIDIA.format("H100")),
    Peak("H200", "bfloat16", 989.4e12, _NVIDIA.format("H200")),
    Peak("B200", "bfloat16", 2250e12, _NVIDIA.format("B200")),
    Peak("TPU v4", "bfloat16", 275e12, _TPU.format("v4")),
    Peak("TPU v5e", "bfloat16", 197e12, _TPU.format("v5e")),
    Peak("TPU v5p", "bfloat16", 459e12, _TPU.format("v5p")),
    Peak("TPU v6e", "bfloat16", 918e12, _TPU.format("v6e")),
)


def peak(device: str, dtype: str = "bfloat16") -> Peak:
    """The table's entry for a device and precision.

    Raises ValueError, naming the known ones, for any other: pass the rate itself to `mfu` then.
    """
    for entry in PEAKS:
        if (entry.device.lower(), entry.dtype) == (str(device).lower(), dtype):
            return entry
    known = ", ".join(f"{entry.device} {entry.dtype}" for entry in PEAKS)
    raise ValueError(f"no peak known for {device!r} at {dtype!r} (known: {known}): give FLOP/s as a number instead")


_HELP = {
    "seconds": "of one step",
    "flops": "useful FLOPs of one step, such as count(…).matmul",
    "peak": "FLOP/s of one device, or an entry of the table by refgrad.cost.peaks.peak(device, dtype)",
    "devices": "how many work together",
}


def mfu(seconds: float, flops: float, peak: "float | Peak", devices: int = 1) -> float:
    """Return the share of the peak rate that useful work reaches: flops / (seconds · peak · devices).

    Args:
      seconds: the time of one step.
      flops: useful FLOPs of one step, such as `count(…).matmul`.
      peak: FLOP/s of one device, or an entry of the table (`refgrad.cost.peaks.peak("A100")`).
      devices: the number of devices that work together.

    Returns:
      A share. One above 1 is returned as it is: it says that one of the three figures is wrong.

    Raises:
      ValueError: where seconds, flops, peak or devices are not positive and finite.
      TypeError: where one is not a number.

    Example:
      >>> from refgrad import cost
      >>> cost.mfu(seconds=0.5, flops=1e12, peak=4e12)
      0.5
    """
    rate = peak.flops_per_second if isinstance(peak, Peak) else peak
    for name, value in {"seconds": seconds, "flops": flops, "peak": rate, "devices": devices}.items():
        if not hasattr(value, "__float__"):
            given = repr(value) if isinstance(value, str) else f"a {type(value).__name__}"
            raise TypeError(f"{name} is {given}: give a number ({_HELP[name]})")
        if not 0 < value < float("inf"):
            raise ValueError(f"{name}={value!r} must be positive and finite")
    return flops / (seconds * rate * devices)
