"""Devices as data: peaks by dtype, bandwidth, memory and links, each row with its source; the CPU by measuring it."""

import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from refgrad._text import nearest
from refgrad.cost.predict.fusion import ROWS, FusionModel
from refgrad.cost.primitives.rule import names


class Efficiency(NamedTuple):
    """The shares of a device's rates that regions of each kind reach: the only fitted numbers.

    Attributes:
      matmul: share of the sustained matrix rate, for regions about a product, and for kernels.
      memory: share of the bandwidth, for every other region.

    Example:
      >>> from refgrad.cost.predict import Efficiency
      >>> Efficiency(memory=0.9).matmul
      1.0
    """

    matmul: float = 1.0
    memory: float = 1.0


class Allocation(NamedTuple):
    """Costs of a program at its host, beside its regions."""

    call: float
    """Seconds of a call."""
    block: int
    """Bytes from which a result, or all temporaries together, lie in memory that the system has yet to hand out."""
    first_touch: float
    """Bytes a second of such memory, the first time that it is written."""


class Device(NamedTuple):
    """One device. Rates are per second.

    Attributes:
      name: its name.
      matmul: dtype of the operands → the vendor's dense peak in FLOP/s, by which MFU and HFU divide.
      sustained: share of that peak which the largest products reach, measured by others (see `source`).
      vector: other FLOPs a second, outside the matrix units.
      transcendental: exp, log, … a second.
      bandwidth: bytes a second from and to the device's memory.
      memory: bytes of that memory.
      link: bytes a second that a device sends around a ring of its neighbours; 0 where it has none.
      launch: seconds that a region costs beside its work.
      efficiency: the shares of these rates that regions reach.
      source: the publications of the figures.
      fusion: the compiler's way of forming fused regions.
      platform: JAX's name for it, by which `lax.platform_dependent` chooses.
      sizes: (FLOPs of a product, FLOP/s that it reaches) by size, in float32. This and all that follows is of measured
        devices alone.
      streams: (bytes that a region moves, bytes a second that it reaches) by size.
      rational: tanh, erf and roots a second, which are computed without exp.
      turned: elements a second of an array whose columns become rows, its rows of any length, and of a multiple of
        `_PAGE` bytes, where a column lies in few sets of the cache.
      allocation: the cost of new memory; other devices have their steps queued ahead, and their memory taken before.

    Example:
      >>> from refgrad.cost.predict import device
      >>> slower = device("H100")._replace(name="half an H100", sustained=0.3)
      >>> slower.rate("bfloat16") < device("H100").rate("bfloat16")
      True
    """

    name: str
    matmul: Mapping[str, float]
    sustained: float
    vector: float
    transcendental: float
    bandwidth: float
    memory: int
    link: float
    launch: float
    efficiency: Efficiency
    source: str
    fusion: FusionModel = ROWS
    platform: str = "cuda"
    sizes: tuple[tuple[float, float], ...] = ()
    streams: tuple[tuple[float, float], ...] = ()
    rational: float = 0.0
    turned: tuple[float, float] = (0.0, 0.0)
    allocation: Allocation | None = None

    def rate(self, dtype: str, flops: float = 0.0) -> float:
        """FLOP/s of a product of these operands, as sustained; for a measured device, at this size."""
        peak = self.matmul.get(dtype, self.matmul["float32"])
        if self.sizes:
            return peak / self.matmul["float32"] * _interpolated(self.sizes, flops)
        return peak * self.sustained

    def function(self, primitive: str) -> float:
        """Elements a second of a transcendental function."""
        return self.rational if self.rational and primitive in _RATIONAL else self.transcendental

    def turning(self, array: Any) -> float:
        """Seconds beside the other work of reading an array column by column."""
        row = array.shape[-1] * array.dtype.itemsize if array.shape else 1
        rate = self.turned[row % _PAGE == 0]
        return math.prod(array.shape) / rate if rate else 0.0

    def stream(self, moved: float) -> float:
        """Bytes a second of a region that moves so many; for a measured device, at this size."""
        return _interpolated(self.streams, moved) if self.streams else self.bandwidth


# Fitted on the nine published runs of experiments/predict.py, which leaves out one at a time to say how far they carry.
_GPU = Efficiency(matmul=0.94, memory=0.91)
_TPU = Efficiency(matmul=0.85, memory=0.91)
_MAMF = "Stas Bekman, ml-engineering, maximum achievable matmul FLOPS, bf16"
_BOOK = "Austin et al., How to Scale Your Model, 2025"
_ASSUMED = (
    "vector units of 8 × 128 × 4 ALUs a core, and a ring along one axis, both ways, as in " + _BOOK + "; assumed: one "
    "transcendental unit to four ALUs, float32 products at a quarter of bfloat16's"
)
_SFU = (
    "transcendental units, 16 a multiprocessor and clock: NVIDIA, CUDA C++ Programming Guide, arithmetic instructions"
)
_LAUNCH = 2e-6
_PAGE = 4096
_RATIONAL = frozenset(names("tanh erf erfc erf_inv sqrt rsqrt cbrt"))


def _gpu(
    name: str,
    peaks: Mapping[str, float],
    sustained: float,
    rates: tuple[float, float, float, float],
    gigabytes: int,
    about: str,
) -> Device:
    """A GPU's row; `rates`: other FLOPs, transcendental functions, bytes of memory, and bytes of the link a second."""
    share = sustained / peaks["bfloat16"]
    source = f"NVIDIA, {about} datasheet (NVLink {2 * rates[3] / 1e9:.0f} GB/s both ways); "
    source += f"sustained {sustained / 1e12:.1f} TFLOP/s: {_MAMF}; {_SFU}"
    vector, functions, bandwidth, link = rates
    return Device(name, peaks, share, vector, functions, bandwidth, gigabytes * 10**9, link, _LAUNCH, _GPU, source)


def _tpu(
    name: str, peaks: tuple[float, float], rates: tuple[float, float, float, float], gigabytes: int, about: str
) -> Device:
    """A TPU's row; `peaks` of bfloat16 and float32, `rates` as of a GPU."""
    matmul: dict[str, float] = {"bfloat16": peaks[0], "float32": peaks[1]}
    rated = f"{peaks[0] / 1e12:.0f} TFLOP/s, {rates[2] / 1e9:,.0f} GB/s"
    source = f"Google Cloud documentation, {name}: {rated}, {about} {_ASSUMED}"
    vector, functions, bandwidth, link = rates
    return Device(
        name, matmul, 1.0, vector, functions, bandwidth, gigabytes * 10**9, link, _LAUNCH, _TPU, source, platform="tpu"
    )


_A100 = {"bfloat16": 312e12, "float16": 312e12, "tf32": 156e12, "float32": 19.5e12}
_HOPPER = {"bfloat16": 989.4e12, "float16": 989.4e12, "float8_e4m3fn": 1978.9e12, "tf32": 494.7e12, "float32": 67e12}

DEVICES: Mapping[str, Device] = {
    device.name: device
    for device in (
        _gpu("A100", _A100, 271.2e12, (19.5e12, 2.4e12, 2.039e12, 300e9), 80, "A100 80GB SXM"),
        _gpu("H100", _HOPPER, 794.5e12, (67e12, 4.2e12, 3.35e12, 450e9), 80, "H100 SXM"),
        _gpu("H200", _HOPPER, 794.5e12, (67e12, 4.2e12, 4.8e12, 450e9), 141, "H200 SXM (sustained as H100)"),
        _tpu("TPU v5e", (197e12, 49e12), (6.1e12, 1.5e12, 819e9, 90e9), 16, "one core; at 1.5 GHz"),
        _tpu("TPU v5p", (459e12, 115e12), (14.3e12, 3.6e12, 2765e9, 180e9), 95, "two cores; at 1.75 GHz"),
        _tpu("TPU v6e", (918e12, 230e12), (7.2e12, 1.8e12, 1638e9, 180e9), 32, "one core; at v5p's 1.75 GHz"),
    )
}


def device(name: "str | Device") -> Device:
    """Return the device of that name.

    Args:
      name: a key of `DEVICES`, in capitals or not; "cpu" for this machine, measured once a process; or a `Device`.

    Returns:
      The `Device`.

    Raises:
      ValueError: for a name that is not in the table, with the nearest.

    Example:
      >>> from refgrad.cost.predict import device
      >>> device("h100").name
      'H100'
    """
    if isinstance(name, Device):
        return name
    if str(name).lower() == "cpu":
        from refgrad.cost.predict.host import this_cpu  # measures on its first call

        return this_cpu()
    known = {key.lower(): found for key, found in DEVICES.items()}
    if str(name).lower() not in known:
        raise ValueError(
            f"device {name!r} is not in the table: {nearest(str(name), [*DEVICES, 'cpu'])}; or give a "
            "refgrad.cost.predict.Device of your own"
        )
    return known[str(name).lower()]


def _interpolated(points: tuple[tuple[float, float], ...], x: float) -> float:
    """Return y at x between measured points, linear in x; the ends beyond them."""
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x <= x1:
            share = max(0.0, (x - x0) / (x1 - x0))
            return y0 + share * (y1 - y0)
    return points[-1][1]
