"""XLA:TPU without a TPU: the devices of a topology, for which JAX compiles ahead of time on any machine with libtpu."""

import functools
import importlib.util
import os
from typing import Any

from jax.experimental import topologies

from refgrad._extras import install

_SETTINGS = {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost"}  # libtpu asks a cloud for them otherwise
_EXAMPLES = "v5e:2x2, v5e:16x16, v5p:2x2x1, v5p:4x4x4, v6e:2x2"


def require() -> None:
    """Raise ImportError without libtpu."""
    if importlib.util.find_spec("libtpu") is None:
        raise ImportError(f"compiling for a TPU needs libtpu: {install('tpu')}")


@functools.cache
def devices(topology: str) -> tuple[Any, ...]:
    """Return the devices of a TPU topology such as "v5e:2x2"; nothing runs on them, programs are compiled for them.

    Raises ImportError without libtpu, ValueError for a topology that libtpu does not have.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        return tuple(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
    except Exception as error:  # libtpu's absence and its refusals come as several types
        lines = str(error).strip().splitlines() or [type(error).__name__]
        require()
        raise ValueError(f"topology {topology!r}: {lines[0]:.160}; known are such as {_EXAMPLES}") from error
