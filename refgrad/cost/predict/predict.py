"""Step time and memory of a program on a device or a mesh of them, from its counted jaxpr: nothing is compiled or run.

FLOPs are those of `count`, which `reconcile` certifies against XLA's lowered module; the jaxpr is taken, and not the
module, because it knows trip counts, scopes and source lines, and because it needs no lowering: the 1.5B takes seconds.
Bytes are those of the regions that a fusion model forms (`fusion`). A region takes the larger of

    FLOPs / (peak · sustained share · efficiency)   and   bytes / (bandwidth · efficiency)

with FLOPs outside the matrix units and transcendental functions at rates of their own, plus the device's launch time.
A collective takes the bytes that a device sends around a ring over its link.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from refgrad.cost.arguments import arrays_of
from refgrad.cost.collectives import Collective
from refgrad.cost.predict import devices
from refgrad.cost.predict.clock import Clock
from refgrad.cost.predict.devices import Device
from refgrad.cost.predict.prediction import Prediction
from refgrad.cost.predict.steps import Schedule, Value, schedule_of


def predict(
    f: Callable[..., Any],
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    device: str | Device,
    mesh: Mapping[str, int] | None = None,
    collectives: Sequence[Collective] = (),
    kernels: Sequence[str] = (),
    donate_argnums: int | Sequence[int] = (),
    overlap: float | Mapping[str, float] = 0.0,
) -> Prediction:
    """Predict the time and the memory of `f(*args, **kwargs)` on a device, or on each device of a mesh.

    Args:
        f: any JAX function. Under `jax.shard_map` it is the program of all devices, whose collectives are read off it;
            otherwise it is the program of one device.
        args: arrays, concrete or `jax.ShapeDtypeStruct`: only shapes and dtypes matter.
        kwargs: keyword arguments, as `args`.
        device: a name of `DEVICES`, "cpu" (this machine, measured), or a `Device`.
        mesh: {axis: size}; by default that of the `shard_map`.
        collectives: what devices exchange beside what f says, such as the gradients of a data-parallel step.
        kernels: scopes that one hand-written kernel computes, such as "attention": it reads and writes only what
            crosses the scope.
        donate_argnums: positions of `args` whose memory outputs may take; those of `jax.jit` are read off f.
        overlap: share of the collectives' time that is hidden behind computation, 0 … 1; by mesh axis where a mapping.

    Returns:
        A `Prediction`: it prints as a table.

    Raises:
        ValueError: for an unknown device, a mesh whose sizes are not positive or not those of f, a mesh without
            anything that is exchanged, an overlap outside 0 … 1, or a donated position that f has no argument at.
        TypeError: for a function, mesh, collective or kernel of another type.
        UnknownCost: as `count` does.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from refgrad import cost
        >>> x = jax.ShapeDtypeStruct((4096, 4096), jnp.bfloat16)
        >>> cost.predict(jnp.matmul, x, x, device="H100").seconds < 1e-3
        True
    """
    target, donated = devices.device(device), _positions(donate_argnums, len(args))
    _check(f, mesh or {}, collectives, kernels, overlap)
    sizes, given = dict(mesh or {}), (args, dict(kwargs or {}))
    called, arrays = arrays_of(lambda args, kwargs: f(*args, **kwargs), given)
    jaxpr = jax.make_jaxpr(called)(*arrays)
    schedule, notes = schedule_of(jaxpr, target.platform)
    for (_, x), value in zip(_leaves(given), schedule.arguments, strict=True):
        value.shards = max(value.shards, _parts(x))
    found_axes = {axis: n for step, _ in schedule.all_steps() for axis, n in step.axes.items()}
    for axis, n in sizes.items():
        if found_axes and found_axes.get(axis, n) != n:
            raise ValueError(f"mesh axis {axis} is {n}, but f runs under a shard_map in which it is {found_axes[axis]}")
    sizes = {**found_axes, **sizes}
    clock = Clock(target, tuple(kernels), overlap)
    parts, plan = clock.run(schedule, _donated(f, schedule, given, donated))
    exchanged = [clock.exchange(one) for one in collectives]
    if any(n > 1 for n in sizes.values()) and not (exchanged or found_axes):
        raise ValueError(
            f"mesh {sizes}: f exchanges nothing between devices; write it under jax.shard_map, or give "
            "collectives=[…], such as the gradients' all-reduce"
        )
    again = sum(s.cost.matmul * times for s, times in schedule.all_steps() if s.recomputed)
    parts = [*parts, *exchanged, *clock.host(plan, schedule.results)]
    return Prediction(
        target,
        sizes,
        tuple(parts),
        plan,
        _named(given, schedule),
        sum(part.matmul for part in parts) - again,
        clock.peak(schedule),
        notes,
    )


def _check(f: Any, mesh: Any, collectives: Any, kernels: Any, overlap: Any) -> None:
    """Raise TypeError or ValueError for what `predict` cannot take."""
    if not callable(f):
        raise TypeError(f"f={f!r} is not a function: give predict(f, *args, device=…)")
    if not isinstance(mesh, Mapping):
        raise TypeError(f"mesh={mesh!r} is not a mapping: give axes with their sizes, such as mesh={{'data': 8}}")
    if isinstance(kernels, str):
        raise TypeError(f"kernels={kernels!r} is one name: give a sequence, kernels=({kernels!r},)")
    for one in collectives:
        if not isinstance(one, Collective):
            raise TypeError(f"collectives holds {one!r}: give refgrad.cost.collectives.Collective")
    for share in overlap.values() if isinstance(overlap, Mapping) else [overlap]:
        if isinstance(share, str) or not 0 <= share <= 1:
            raise ValueError(f"overlap is {share!r}, but must be a share from 0 to 1 of the collectives' time")
    for axis, size in mesh.items():
        if type(size) is not int or size < 1:
            raise ValueError(f"mesh axis {axis} is {size!r}, but must be a whole number of devices, 1 at least")


def _positions(donate_argnums: int | Sequence[int], n: int) -> tuple[int, ...]:
    """Return the donated positions. Raises ValueError for one without an argument."""
    positions = (donate_argnums,) if isinstance(donate_argnums, int) else tuple(donate_argnums)
    for position in positions:
        if not -n <= position < n:
            raise ValueError(f"donate_argnums holds {position}, but f is given {n} arguments: 0 … {n - 1}")
    return tuple(position % n for position in positions)


def _donated(f: Any, schedule: Schedule, given: Any, positions: Sequence[int]) -> frozenset[Value]:
    """The arguments whose memory outputs may take: those given, or those that `jax.jit` donates."""
    marks = [path[0].idx == 0 and path[1].idx in positions for path, _ in _leaves(given)]
    if hasattr(f, "trace") and not positions:
        info = jax.tree.leaves(f.trace(*given[0], **given[1]).args_info, is_leaf=lambda x: hasattr(x, "donated"))
        marks = [one.donated for one in info] if len(info) == len(marks) else marks
    return frozenset(v for v, mark in zip(schedule.arguments, marks, strict=True) if mark)


def _leaves(given: Any) -> list[tuple[Any, Any]]:
    """The array leaves of (args, kwargs) with their paths."""
    leaves = jax.tree_util.tree_leaves_with_path(given)
    return [(path, x) for path, x in leaves if hasattr(x, "dtype") or isinstance(x, bool | int | float | complex)]


def _parts(x: Any) -> int:
    """Return the number of devices over which an argument's sharding divides it."""
    sharding = getattr(x, "sharding", None)
    if sharding is None:
        return 1
    return math.prod(n // max(share, 1) for n, share in zip(x.shape, sharding.shard_shape(x.shape), strict=True))


def _named(given: Any, schedule: Schedule) -> dict[str, int]:
    """Bytes of the arguments by the first two parts of their paths: `0.params`, `0.opt_state`, `1`."""
    found: dict[str, int] = {}
    for (path, _), value in zip(_leaves(given), schedule.arguments, strict=True):
        keys = [str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", key)))) for key in path[1:3]]
        name = f"argument {'.'.join(keys)}"
        found[name] = found.get(name, 0) + value.bytes
    return found
