"""The machine: its processor, vector extensions, the cores that this process may use, and versions."""

import contextlib
import os
import platform
import sys
from importlib import metadata
from pathlib import Path


def processor() -> str:
    """The processor's name, with its family and model where the name alone says little."""
    info = _cpuinfo()
    name = info.get("model name") or platform.processor() or platform.machine()
    numbers = [f"{key} {info[key]}" for key in ("cpu family", "model", "stepping") if key in info]
    return f"{name} ({', '.join(numbers)})" if numbers else name


def vector() -> str:
    """The widest vector and matrix extensions that the processor reports; "" where it reports none."""
    flags = set(_cpuinfo().get("flags", "").split())
    known = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "AVX-512 BF16", "amx_bf16": "AMX BF16"}
    return ", ".join(name for flag, name in known.items() if flag in flags)


def cores() -> int | None:
    """Logical cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()


def memory() -> int:
    """Bytes of this machine's memory; where it does not say, those that a 64-bit address reaches."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return 2**63


def available() -> int:
    """Return the bytes of memory of one accelerator, or of this machine where JAX computes on its CPU."""
    import jax  # `scaffold_everything` comes before its devices start

    device = jax.local_devices()[0]
    if device.platform != "cpu" and (stats := device.memory_stats()):
        return stats["bytes_limit"]
    return memory()


def versions(*others: str) -> dict[str, str]:
    """Return the versions of Python, refgrad and JAX, and of the other packages that are installed."""
    found = {"python": platform.python_version()}
    for package in ("refgrad", "jax", "jaxlib", *others):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def _cpuinfo() -> dict[str, str]:
    """The first processor of Linux's list; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text().split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
