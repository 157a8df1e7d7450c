"""What a run is computed on: what must be the same for a resumed run to repeat bit for bit.

XLA divides sums by the number of cores and devices, picks instructions by the processor, and changes both with its
version; with all of these equal it repeats.
"""

from collections.abc import Mapping
from typing import Any

import jax

from refgrad._machine import cores, processor, vector, versions

PACKAGES = ("jax", "jaxlib", "optax", "refgrad")


def facts(mesh: Mapping[str, Any]) -> dict[str, Any]:
    """Processor, cores, devices, processes, the mesh, and versions, as JSON holds them."""
    devices = jax.devices()
    return {
        "processor": processor(),
        "vector": vector(),
        "cores": cores(),
        "devices": f"{len(devices)} × {devices[0].device_kind}",
        "processes": jax.process_count(),
        "mesh": dict(mesh),
        **versions(PACKAGES),
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is no longer as it was, a line each; empty where the run repeats bit for bit."""
    return [f"{key}: {before.get(key)} → {now[key]}" for key in now if before.get(key) != now[key]]
