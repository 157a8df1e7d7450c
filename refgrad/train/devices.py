"""The devices of a run: a mesh of them, the processes that hold them, and arrays that span both.

One process a machine. Each holds the rows of the batch that its own devices need, and `jax.distributed` lets all run
one program over all devices. A mesh has the axes of `sharding.AXES` that more than one device shares.

Source: JAX, "Introduction to multi-controller JAX".
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from refgrad._text import nearest
from refgrad.train.sharding import AXES, batch_sharding, shardings

DETECT = "detect"
HEARTBEAT = 20  # seconds without a sign of life, after which a process counts as lost
MOST = 256  # virtual devices: each has its threads
START = 120  # seconds that the processes have to find each other


def connect(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Join the other processes; nothing where none of the three is given. Call it before JAX starts its devices.

    `coordinator` is HOST:PORT of process 0, the same for all, or "detect": the cluster that JAX itself finds (Slurm,
    Open MPI, Kubernetes, TPU), which knows the other two. Raises ValueError for arguments that do not fit together, and
    RuntimeError where the others do not come.
    """
    given = {"--coordinator": coordinator, "--processes": processes, "--process": process}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return
    if coordinator == DETECT and len(missing) == 2:
        jax.distributed.initialize(initialization_timeout=START, heartbeat_timeout_seconds=HEARTBEAT)
        return
    if coordinator == DETECT:
        raise ValueError(f"--coordinator {DETECT} finds the processes by itself: leave --processes and --process out")
    if coordinator is None or processes is None or process is None:
        raise ValueError(f"{' and '.join(missing)} missing: a run of several processes needs {', '.join(given)}")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"--coordinator {coordinator}: give HOST:PORT of process 0, such as 10.0.0.1:1234")
    if processes < 1:
        raise ValueError(f"--processes is {processes}, but must be at least 1")
    if not 0 <= process < processes:
        raise ValueError(f"--process is {process}, but must be from 0 to {processes - 1}: there are {processes}")
    jax.distributed.initialize(
        coordinator, processes, process, initialization_timeout=START, heartbeat_timeout_seconds=HEARTBEAT
    )


def first() -> bool:
    """Whether this is the process that prints and writes what is written once."""
    return jax.process_index() == 0


def simulate(devices: int) -> None:
    """Have at least so many CPU devices in this process, on however many cores.

    Raises ValueError for more than `MOST`, RuntimeError where JAX has started with fewer.
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
    """{axis: size} of a text such as "data=2,model=2".

    Raises ValueError for another form, an axis that there is not or that comes twice, and a size below 1.
    """
    sizes: dict[str, int] = {}
    for part in text.split(","):
        axis, equals, size = part.strip().partition("=")
        if not equals or not size.isdigit():
            raise ValueError(f"the mesh {text!r} is not of the form data=2,model=2: {part!r}")
        if axis in sizes:
            raise ValueError(f"the mesh {text!r} has {axis} twice")
        sizes[axis] = int(size)
    _check(sizes)
    return sizes


def _check(sizes: Mapping[str, int]) -> None:
    for axis, size in sizes.items():
        if axis not in AXES:
            raise ValueError(f"{axis} is no axis of a mesh: {nearest(axis, AXES)}")
        if size < 1:
            raise ValueError(f"mesh.{axis} is {size}, but must be at least 1")


def count(sizes: Mapping[str, int]) -> int:
    """Devices of a mesh {axis: size}."""
    return math.prod(sizes.values())


def make(sizes: Mapping[str, int], axis_types: str = "auto", devices: list[Any] | None = None) -> Mesh:
    """A mesh with `sizes` devices along each of `AXES`, 1 where an axis is not named; axes of one device are left out.

    `axis_types` is "auto", shardings found by XLA's partitioner, or "explicit", part of every array's type. `devices`
    are JAX's own by default. Raises ValueError for other names, sizes below 1, more devices than there are, and, over
    several processes, fewer.
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


def rows(mesh: Mesh, batch: int) -> tuple[int, int]:
    """(k, n): this process's devices need the k-th of n equal parts of a batch of so many sequences.

    Where `model` alone spans processes, they all need the whole batch. Raises ValueError where a process's devices do
    not stand side by side along the batch, or the batch is not divided.
    """
    sharding = batch_sharding(mesh)
    if batch % (parts := math.prod(mesh.shape.get(axis, 1) for axis in ("data", "fsdp"))):
        raise ValueError(f"train.batch is {batch}, which the mesh's {parts} parts of it do not divide: take a multiple")
    own = sharding.addressable_devices_indices_map((batch, 1)).values()
    taken = sorted({index[0].indices(batch)[:2] for index in own if index is not None})
    start, stop = taken[0][0], taken[-1][1]
    length = stop - start
    if sum(high - low for low, high in taken) != length or batch % length or start % length:
        raise ValueError(f"process {jax.process_index()} needs the rows {taken} of the batch, which are no one part")
    return start // length, batch // length


def batch_array(mesh: Mesh, local: np.ndarray, batch: int) -> jax.Array:
    """The global array (batch, s) of ids, of which this process has the rows that `rows` says."""
    return jax.make_array_from_process_local_data(batch_sharding(mesh), local, (batch, *local.shape[1:]))


def make_state(mesh: Mesh, function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)`, a state, made on the mesh by the table of rules: each device makes its share alone.

    So no device ever holds the whole, and no process holds an array that the others do not know.
    """
    return jax.jit(function, out_shardings=shardings(jax.eval_shape(function, *args), mesh))(*args)


def place(mesh: Mesh, state: Any) -> Any:
    """A state that every process has whole, split over the mesh by the table of rules."""
    return jax.tree.map(
        lambda leaf, sharding: jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index]),
        jax.tree.map(np.asarray, state),
        shardings(state, mesh),
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, PartitionSpec())
