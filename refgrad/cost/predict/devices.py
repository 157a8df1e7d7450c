"""Devices as data: peaks by dtype, bandwidth, memory and links, each row with its source; the CPU by measuring it."""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

from refgrad._text import nearest
from refgrad.cost.predict.fusion import ROWS, FusionModel


class Efficiency(NamedTuple):
    """The shares of a device's rates that regions of each kind reach: the only fitted numbers."""

    matmul: float = 1.0
    """Share of the sustained matrix rate, for regions about a product, and for kernels."""
    memory: float = 1.0
    """Share of the bandwidth, for every other region."""


class Device(NamedTuple):
    """One device. Rates per second; `matmul` by dtype of the operands."""

    name: str
    matmul: Mapping[str, float]
    """Vendor's dense peak in FLOP/s, by which MFU and HFU divide."""
    sustained: float
    """Share of that peak which the largest products reach, measured by others (see `source`)."""
    vector: float
    """Other FLOPs a second, outside the matrix units."""
    transcendental: float
    """exp, tanh, … a second."""
    bandwidth: float
    """Bytes a second from and to the device's memory."""
    memory: int
    """Bytes of that memory."""
    link: float
    """Bytes a second that a device sends around a ring of its neighbours; 0 where it has none."""
    launch: float
    """Seconds that a region costs beside its work."""
    efficiency: Efficiency
    source: str
    fusion: FusionModel = ROWS
    platform: str = "cuda"
    """JAX's name for it, by which `lax.platform_dependent` chooses."""
    sizes: tuple[tuple[float, float], ...] = ()
    """Measured devices alone: (FLOPs of a product, FLOP/s that it reaches) by size, in float32."""
    streams: tuple[tuple[float, float], ...] = ()
    """Measured devices alone: (bytes that a region moves, bytes a second that it reaches) by size."""

    def rate(self, dtype: str, flops: float = 0.0) -> float:
        """FLOP/s of a product of these operands, as sustained; for a measured device, at this size."""
        peak = self.matmul.get(dtype, self.matmul["float32"])
        if self.sizes:
            return peak / self.matmul["float32"] * _interpolated(self.sizes, flops)
        return peak * self.sustained

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

DEVICES: Mapping[str, Device] = {
    device.name: device
    for device in (
        Device(
            "A100",
            {"bfloat16": 312e12, "float16": 312e12, "tf32": 156e12, "float32": 19.5e12},
            271.2 / 312,
            19.5e12,
            2.4e12,
            2.039e12,
            80 * 10**9,
            300e9,
            _LAUNCH,
            _GPU,
            f"NVIDIA, A100 80GB SXM datasheet (NVLink 600 GB/s both ways); sustained 271.2 TFLOP/s: {_MAMF}; {_SFU}",
        ),
        Device(
            "H100",
            {"bfloat16": 989.4e12, "float16": 989.4e12, "float8_e4m3fn": 1978.9e12, "tf32": 494.7e12, "float32": 67e12},
            794.5 / 989.4,
            67e12,
            4.2e12,
            3.35e12,
            80 * 10**9,
            450e9,
            _LAUNCH,
            _GPU,
            f"NVIDIA, H100 SXM datasheet (NVLink 900 GB/s both ways); sustained 794.5 TFLOP/s: {_MAMF}; {_SFU}",
        ),
        Device(
            "H200",
            {"bfloat16": 989.4e12, "float16": 989.4e12, "float8_e4m3fn": 1978.9e12, "tf32": 494.7e12, "float32": 67e12},
            794.5 / 989.4,
            67e12,
            4.2e12,
            4.8e12,
            141 * 10**9,
            450e9,
            _LAUNCH,
            _GPU,
            f"NVIDIA, H200 SXM datasheet (NVLink 900 GB/s both ways); sustained as H100: {_MAMF}; {_SFU}",
        ),
        Device(
            "TPU v5e",
            {"bfloat16": 197e12, "float32": 49e12},
            1.0,
            6.1e12,
            1.5e12,
            819e9,
            16 * 10**9,
            90e9,
            _LAUNCH,
            _TPU,
            f"Google Cloud documentation, TPU v5e: 197 TFLOP/s, 819 GB/s, one core; at 1.5 GHz {_ASSUMED}",
            platform="tpu",
        ),
        Device(
            "TPU v5p",
            {"bfloat16": 459e12, "float32": 115e12},
            1.0,
            14.3e12,
            3.6e12,
            2765e9,
            95 * 10**9,
            180e9,
            _LAUNCH,
            _TPU,
            f"Google Cloud documentation, TPU v5p: 459 TFLOP/s, 2,765 GB/s, two cores; at 1.75 GHz {_ASSUMED}",
            platform="tpu",
        ),
        Device(
            "TPU v6e",
            {"bfloat16": 918e12, "float32": 230e12},
            1.0,
            7.2e12,
            1.8e12,
            1638e9,
            32 * 10**9,
            180e9,
            _LAUNCH,
            _TPU,
            f"Google Cloud documentation, TPU v6e: 918 TFLOP/s, 1,638 GB/s, one core; at v5p's 1.75 GHz {_ASSUMED}",
            platform="tpu",
        ),
    )
}


def device(name: "str | Device") -> Device:
    """Return the device of that name; "cpu" is this machine, measured once a process.

    Raises ValueError for a name that is not in the table, with the nearest.
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
