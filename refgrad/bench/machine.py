"""Facts of the machine behind a measurement: processor, memory, versions."""

import resource
import sys
from pathlib import Path
from typing import Any

from refgrad._extras import install
from refgrad._machine import cores, processor, vector, versions

OTHERS = ("numpy", "optax", "torch", "transformers")


def facts() -> dict[str, Any]:
    """Processor, accelerator (None without one), logical cores, bytes of memory, and the versions of packages."""
    return {
        "processor": processor(),
        "vector": vector(),
        "accelerator": device.device_kind if (device := accelerator()) else None,
        "cores": cores(),
        "memory": memory()[0],
        "versions": versions(*OTHERS),
    }


def memory() -> tuple[int, int]:
    """Bytes of memory, the accelerator's where JAX computes on one: in all, and available now without swapping.

    Raises ImportError, naming the extra, where psutil is missing.
    """
    if device := accelerator():
        stats = device.memory_stats()
        return stats["bytes_limit"], stats["bytes_limit"] - stats["bytes_in_use"]
    try:
        import psutil
    except ImportError as error:
        raise ImportError(f"the bench measures memory with psutil: {install('bench')}") from error
    found = psutil.virtual_memory()
    return found.total, found.available


def accelerator() -> Any:
    """The device that JAX computes on, None where it is the CPU."""
    import jax  # not before a worker's allocator is set

    return None if jax.default_backend() == "cpu" else jax.local_devices()[0]


def peak_memory() -> int:
    """The most memory that this process has had, in bytes: of JAX's accelerator where it has one, else resident."""
    if device := accelerator():
        return device.memory_stats()["peak_bytes_in_use"]
    return peak_resident()


def peak_resident() -> int:
    """The largest resident memory that this process has had, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # the kernel's own mark; getrusage's can be the parent's
        lines = (line.split() for line in status.read_text().splitlines())
        return next(int(line[1]) * 1024 for line in lines if line[0] == "VmHWM:")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
