"""The machine: its processor, vector extensions, the cores that this process may use, and versions."""

import contextlib
import os
import platform
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

LITTLE = "--xla_backend_optimization_level=0"  # numbers are the same to rounding


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


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of Python and of those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def compile_little() -> None:
    """Make XLA compile faster and optimise less, for programs that run once: before JAX starts its devices."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {LITTLE}".strip()


def _cpuinfo() -> dict[str, str]:
    """The first processor of Linux's list; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text().split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
