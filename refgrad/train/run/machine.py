"""The facts of a machine that must be the same for a resumed run to repeat bit for bit.

XLA divides sums by the number of cores and devices, chooses instructions by the processor, and changes both with its
version.
"""

from collections.abc import Mapping
from typing import Any

import jax

from refgrad._machine import cores, processor, vector, versions


def facts(mesh: Mapping[str, Any]) -> dict[str, Any]:
    """Return processor, cores, devices, processes, the mesh, and versions, ready for JSON."""
    devices = jax.devices()
    return {
        "processor": processor(),
        "vector": vector(),
        "cores": cores(),
        "devices": f"{len(devices)} × {devices[0].device_kind}",
        "processes": jax.process_count(),
        "mesh": dict(mesh),
        **versions("optax"),
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return a line for each fact that has changed; none if the run repeats bit for bit."""
    return [f"{key}: {before.get(key)} → {now[key]}" for key in now if before.get(key) != now[key]]
