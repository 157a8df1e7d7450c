"""What a run is computed on: what must be the same for a resumed run to repeat bit for bit.

XLA divides sums by the number of cores and devices, picks instructions by the processor, and changes both with its
version; with all of these equal it repeats.
"""

import os
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("jax", "jaxlib", "optax", "refgrad")


def facts(mesh: Mapping[str, Any]) -> dict[str, Any]:
    """Processor, cores, devices, processes, the mesh, and versions, as JSON holds them."""
    devices = jax.devices()
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "devices": f"{len(devices)} × {devices[0].device_kind}",
        "processes": jax.process_count(),
        "mesh": dict(mesh),
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in PACKAGES},
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is no longer as it was, a line each; empty where the run repeats bit for bit."""
    return [f"{key}: {before.get(key)} → {now[key]}" for key in now if before.get(key) != now[key]]


def processor() -> str:
    """The processor's name with its numbers and vector extensions, as Linux lists it; elsewhere the architecture."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return f"{platform.machine()} {platform.processor()}".strip()
    lines = (line.partition(":") for line in path.read_text().split("\n\n", 1)[0].splitlines())
    info = {key.strip(): value.strip() for key, _, value in lines}
    numbers = [info[key] for key in ("model name", "cpu family", "model", "stepping") if key in info]
    wide = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in info.get("flags", "").split()]
    return " ".join([*(numbers or [platform.machine()]), *wide])
