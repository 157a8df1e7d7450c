"""The devices of a run: their mesh, the processes that hold them, and arrays that span both.

Each machine runs one process, which holds the rows of the batch that its own devices need; `jax.distributed` lets all
processes run one program over all devices. A mesh has the axes of `sharding.AXES` that more than one device shares.

Source: JAX, "Introduction to multi-controller JAX".
"""

import contextlib
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh

from refgrad._exit_codes import INTERRUPTED
from refgrad._text import is_integer, nearest
from refgrad.models.gpt2 import Config
from refgrad.train.mesh.sharding import AXES, BATCH, batch_sharding, check, shardings

DETECT = "detect"
HEARTBEAT = 20  # seconds without a sign of life after which a process counts as lost
LOST = (
    "Gloo",
    "NCCL",
    "coordination service",
    "CoordinationService",
    "heartbeat",
)  # words of the errors that JAX raises then
MOST = 256  # virtual devices, since each has its own threads
START = 120  # seconds that the processes have to find each other


def connect(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Join the other processes; do nothing if no argument is given. Call it before JAX starts its devices.

    Args:
        coordinator: HOST:PORT of process 0, the same for all, or "detect" for the cluster that JAX itself finds (Slurm,
            Open MPI, Kubernetes, TPU), which knows the other two.
        processes: The number of processes.
        process: The index of this one.

    Raises:
        RuntimeError: The other processes do not connect in time.
        ValueError: The arguments do not fit together.
    """
    given = {"--coordinator": coordinator, "--processes": processes, "--process": process}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return
    # or JAX handles SIGTERM, and training would not end by it (run/signals.py)
    jax.config.update("jax_enable_preemption_service", False)
    if coordinator == DETECT and len(missing) == 2:
        _detect()
        return
    if coordinator == DETECT:
        raise ValueError(f"--coordinator {DETECT} finds the processes by itself: leave --processes and --process out")
    if coordinator is None or processes is None or process is None:
        raise ValueError(f"{' and '.join(missing)} missing: a run of several processes needs {', '.join(given)}")
    host, _, port = coordinator.rpartition(":")
    if not host or not is_integer(port) or not 0 < int(port) < 65536:
        raise ValueError(f"--coordinator {coordinator}: give HOST:PORT of process 0, such as 10.0.0.1:1234")
    if processes < 1:
        raise ValueError(f"--processes is {processes}, but must be at least 1")
    if not 0 <= process < processes:
        raise ValueError(f"--process is {process}, but must be from 0 to {processes - 1}: there are {processes}")
    jax.distributed.initialize(
        coordinator, processes, process, initialization_timeout=START, heartbeat_timeout_seconds=HEARTBEAT
    )


def _detect() -> None:
    """Join the processes of the cluster that JAX finds. Raise ValueError if it finds none."""
    try:
        jax.distributed.initialize(initialization_timeout=START, heartbeat_timeout_seconds=HEARTBEAT)
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"--coordinator {DETECT}: JAX finds no cluster of several processes here, such as Slurm's or Open MPI's: "
            "give --coordinator HOST:PORT, --processes N and --process K to each process"
        ) from error


def several() -> bool:
    """Return True if this is one of several processes."""
    return jax.distributed.is_initialized()


def first() -> bool:
    """Return True if this is process 0, which prints and writes for all."""
    return jax.process_index() == 0


def simulate(devices: int) -> None:
    """Make JAX start with at least this many CPU devices in this process, on any number of cores.

    Raises:
        RuntimeError: JAX has started with fewer.
        ValueError: More than `MOST` are asked for.
    """
    if devices > MOST:
        raise ValueError(f"{devices} virtual CPU devices are asked for, but one process has at most {MOST} here")
    try:
        jax.config.update("jax_num_cpu_devices", devices)
    except RuntimeError:
        present = len(jax.devices("cpu"))
        if present < devices:
            raise RuntimeError(
                f"{devices} CPU devices are needed, but JAX has started with {present}: "
                f"set JAX_NUM_CPU_DEVICES={devices} before"
            ) from None


def parse(text: str) -> dict[str, int]:
    """Return {axis: size} from a text such as "data=2,model=2".

    Raises ValueError for another form, an unknown or repeated axis, and a size below 1.
    """
    sizes: dict[str, int] = {}
    for part in text.split(","):
        axis, equals, size = part.strip().partition("=")
        if not equals or not is_integer(size):
            raise ValueError(f"the mesh {text!r} is not of the form data=2,model=2: {part!r}")
        if axis in sizes:
            raise ValueError(f"the mesh {text!r} has {axis} twice")
        sizes[axis] = int(size)
    _check(sizes)
    return sizes


def _check(sizes: Mapping[str, int]) -> None:
    for axis, size in sizes.items():
        if axis not in AXES:
            raise ValueError(f"{axis} is not an axis of a mesh: {nearest(axis, AXES)}")
        if size < 1:
            raise ValueError(f"mesh.{axis} is {size}, but must be at least 1")


def count(sizes: Mapping[str, int]) -> int:
    """Return the number of devices of a mesh {axis: size}."""
    return math.prod(sizes.values())


def make(sizes: Mapping[str, int], axis_types: str = "auto", devices: list[Any] | None = None) -> Mesh:
    """Return a mesh, without the axes of one device.

    Args:
        sizes: The number of devices along each of `AXES`, by default 1.
        axis_types: "auto" for shardings found by XLA's partitioner, "explicit" for shardings in every array's type.
        devices: The devices to take from, by default JAX's own.

    Raises:
        ValueError: A name is unknown, a size is below 1, there are fewer devices, or several processes hold more.
    """
    kinds = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}
    if axis_types not in kinds:
        raise ValueError(f"axis_types is {axis_types!r}, but must be one of {', '.join(map(repr, kinds))}")
    _check(sizes)
    devices = list(jax.devices()) if devices is None else devices
    used = {axis: sizes[axis] for axis in AXES if sizes.get(axis, 1) > 1}
    total, names = count(used), " × ".join(f"mesh.{axis} = {n}" for axis, n in used.items()) or "the mesh"
    if total > len(devices):
        raise ValueError(
            f"{names} is {total} devices, but JAX sees {len(devices)} ({devices[0].platform}): take a smaller mesh, or "
            f"start with JAX_NUM_CPU_DEVICES={total} for virtual ones on a CPU"
        )
    if jax.process_count() > 1 and total != len(devices):
        raise ValueError(
            f"{names} is {total} devices, but {jax.process_count()} processes hold {len(devices)}: take all of them"
        )
    shape = tuple(used.values())
    return jax.make_mesh(shape, tuple(used), (kinds[axis_types],) * len(shape), devices=devices[:total])


def make_for(
    config: Config, batch: int, sequence: int, sizes: Mapping[str, int], axis_types: str = "auto"
) -> Mesh | None:
    """Return a mesh on which this model can take batches of batch × sequence ids; None for one device alone.

    Raises ValueError as `make` and `sharding.check` do.
    """
    if count(sizes) == 1 and not several():
        return None
    mesh = make(sizes, axis_types)
    check(config, mesh.shape, batch, sequence)
    return mesh


def rows(mesh: Mesh | None) -> tuple[int, int]:
    """Return (k, n): this process's devices need the k-th of n equal parts of a batch's rows.

    Processes that only `model` separates all need the whole batch. Raises ValueError if a process's devices are not
    adjacent along the batch.
    """
    if mesh is None:
        return 0, 1
    parts = math.prod(mesh.shape.get(axis, 1) for axis in BATCH)
    own = batch_sharding(mesh).addressable_devices_indices_map((parts, 1)).values()
    taken = sorted({index[0].indices(parts)[0] for index in own if index is not None})
    first, length = taken[0], len(taken)
    if taken != list(range(first, first + length)) or first % length:
        raise ValueError(f"process {jax.process_index()} needs parts {taken} of the batch's {parts}: order the devices")
    return first // length, parts // length


def batch_array(mesh: Mesh, local: np.ndarray) -> jax.Array:
    """Return the global array (b, s) of ids, given the rows of this process (`rows`)."""
    return jax.make_array_from_process_local_data(batch_sharding(mesh), local)


def make_state(mesh: Mesh, function: Callable[..., Any], *args: Any) -> Any:
    """Return the state `function(*args)`, sharded on the mesh by the table of rules.

    Each device makes its share alone, so that no device ever holds the whole.
    """
    return jax.jit(function, out_shardings=shardings(jax.eval_shape(function, *args), mesh))(*args)


def whole(tree: Any) -> Any:
    """Return global arrays, whole on this process's first device. Every process must call it."""
    local = multihost_utils.process_allgather(tree, tiled=True) if jax.process_count() > 1 else jax.device_get(tree)
    return jax.device_put(local, jax.local_devices()[0])


@contextlib.contextmanager
def together() -> Iterator[None]:
    """End this process at once, with one line, if anything fails in it while there are others.

    So none waits for a process that is gone. A process that is waiting when another dies learns of it from its
    connections, or after `HEARTBEAT` seconds.
    """
    try:
        yield
    except BaseException as error:
        if not several():
            raise
        if isinstance(error, KeyboardInterrupt):
            _leave("interrupted", INTERRUPTED)
        lines = str(error).strip().splitlines() or [type(error).__name__]
        bad_input = isinstance(error, ValueError | TypeError | OSError | ImportError)
        if any(word in str(error) for word in LOST):
            lines = [f"another process is gone ({lines[0]}): start all again with --resume; checkpoints are whole"]
            bad_input = False
        elif not bad_input and not type(error).__module__.startswith("refgrad."):
            traceback.print_exc()
        _leave(lines[0], 2 if bad_input else 1)


def _leave(why: str, code: int) -> None:
    """End this process at once: an ordinary exit would wait for the others."""
    print(f"refgrad: process {jax.process_index()} of {jax.process_count()}: {why}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
