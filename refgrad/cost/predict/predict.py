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
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from refgrad._text import table
from refgrad.cost.arguments import arrays_of
from refgrad.cost.collectives import Collective, sent
from refgrad.cost.predict import fusion
from refgrad.cost.predict.devices import Device, device
from refgrad.cost.predict.memory import Lifetimes, lifetimes
from refgrad.cost.predict.regions import Region, regions
from refgrad.cost.predict.steps import Program, Step, Value, program_of
from refgrad.jaxpr.avals import dtype_of, nbytes, shape_of

_KINDS = {
    "all_gather": "all-gather",
    "reduce_scatter": "reduce-scatter",
    "all_to_all": "all-to-all",
    "ppermute": "collective-permute",
    "psum": "all-reduce",
    "pmax": "all-reduce",
    "pmin": "all-reduce",
}


class Part(NamedTuple):
    """One region, or one collective, of one device."""

    scope: str
    kind: str
    """product, map, reduce, update, kernel, library or collective."""
    times: int
    """Number of runs in a step; the other figures are those of all runs."""
    matmul: int
    elementwise: int
    transcendental: int
    bytes: int
    """Bytes read and written; those sent, for a collective."""
    seconds: float
    bound: str
    """The larger time: matmul, vector, memory, link or launch."""
    hidden: float = 0.0
    """The share of a collective's time that is assumed to be hidden behind computation."""


@dataclass(frozen=True)
class Prediction:
    """One step of a program on one device of a mesh; prints as a table."""

    device: Device
    mesh: Mapping[str, int]
    parts: tuple[Part, ...]
    memory: Lifetimes
    arguments: Mapping[str, int]
    """Bytes of the arguments on one device, by name."""
    model_flops: int
    """Matrix FLOPs of one device without those that `jax.checkpoint` computes again."""
    peak: float
    """FLOP/s by which MFU and HFU divide: the device's, at the dtype of most matrix FLOPs."""
    notes: tuple[str, ...] = ()

    @property
    def compute_seconds(self) -> float:
        """Seconds of the regions, one after another."""
        return sum(part.seconds for part in self.parts if part.kind != fusion.COLLECTIVE)

    @property
    def link_seconds(self) -> float:
        """Seconds of the collectives, one after another."""
        return sum(part.seconds for part in self.parts if part.kind == fusion.COLLECTIVE)

    @property
    def seconds(self) -> float:
        """Step time: regions, and the part of the collectives that is not hidden behind them."""
        return self.compute_seconds + self.link_seconds - min(self.hidden_seconds, self.compute_seconds)

    @property
    def hidden_seconds(self) -> float:
        """Seconds of collectives that are assumed to be hidden, as far as there is computation."""
        return sum(part.seconds * part.hidden for part in self.parts)

    @property
    def matmul_flops(self) -> int:
        """Matrix FLOPs of one device, recomputation included."""
        return sum(part.matmul for part in self.parts)

    @property
    def bytes(self) -> int:
        """Bytes that the regions move."""
        return sum(part.bytes for part in self.parts if part.kind != fusion.COLLECTIVE)

    @property
    def mfu(self) -> float:
        """Model FLOPs utilisation: `model_flops` over the peak."""
        return self.model_flops / (self.seconds * self.peak) if self.seconds else 0.0

    @property
    def hfu(self) -> float:
        """Hardware FLOPs utilisation: all matrix FLOPs over the peak."""
        return self.matmul_flops / (self.seconds * self.peak) if self.seconds else 0.0

    @property
    def fits(self) -> bool:
        """True where the peak of memory is below the device's."""
        return self.memory.peak <= self.device.memory

    def by_scope(self, depth: int = 2) -> dict[str, tuple[Part, ...]]:
        """Scope path, so many levels deep → its parts, the costliest first."""
        groups: dict[str, list[Part]] = {}
        for part in self.parts:
            groups.setdefault("/".join(part.scope.split("/")[:depth]), []).append(part)
        ordered = sorted(groups.items(), key=lambda item: -sum(part.seconds for part in item[1]))
        return {scope: tuple(parts) for scope, parts in ordered}

    def __str__(self) -> str:
        rows = []
        for scope, parts in self.by_scope().items():
            seconds = sum(part.seconds for part in parts)
            flops, moved = sum(part.matmul for part in parts), sum(part.bytes for part in parts)
            longest = _longest(parts)
            share = f"{seconds / self.seconds:.1%}" if self.seconds else ""
            rows.append([scope or "(no scope)", _ms(seconds), share, f"{flops:,}", f"{moved:,}", longest])
        where = f"{self.device.name}" + "".join(f", {axis}={n}" for axis, n in self.mesh.items())
        lines = [
            table(["part", "ms", "% step", "matmul FLOPs", "bytes", "bound by"], rows),
            f"step on {where}: {_ms(self.seconds)} ms = {_ms(self.compute_seconds)} of regions + "
            f"{_ms(self.link_seconds)} of collectives, {_ms(self.hidden_seconds)} of these assumed hidden; "
            f"MFU {self.mfu:.3f}, HFU {self.hfu:.3f}",
            self.memory_text(),
        ]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def memory_text(self) -> str:
        """Memory of one device by what holds it, and the verdict."""
        m = self.memory
        rows = [[name, f"{size:,}"] for name, size in self.arguments.items()]
        rows += [
            ["outputs beside donated arguments", f"{m.outputs - m.aliased:,}"],
            ["temporaries: residuals, gradients and the rest", f"{m.temporaries:,}"],
            ["peak", f"{m.peak:,}"],
            ["memory of the device", f"{self.device.memory:,}"],
        ]
        return table(["memory of one device", "bytes"], rows) + f"\n{'fits' if self.fits else 'does NOT fit'}"

    def data(self) -> dict[str, Any]:
        """The prediction as plain data for JSON."""
        figures = (
            "seconds",
            "compute_seconds",
            "link_seconds",
            "hidden_seconds",
            "mfu",
            "hfu",
            "fits",
            "matmul_flops",
            "bytes",
        )
        return {
            "device": self.device.name,
            "mesh": dict(self.mesh),
            **{name: getattr(self, name) for name in figures},
            "model_flops": self.model_flops,
            "memory": {**self.memory._asdict(), "peak": self.memory.peak, "arguments": dict(self.arguments)},
            "parts": [part._asdict() for part in self.parts],
            "notes": list(self.notes),
        }


def predict(
    f: Callable[..., Any],
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    device: str | Device,
    mesh: Mapping[str, int] | None = None,
    collectives: Sequence[Collective] = (),
    kernels: Sequence[str] = (),
    donate_argnums: Sequence[int] = (),
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
            anything that is exchanged, or an overlap outside 0 … 1.
        UnknownCost: as `count` does.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from refgrad import cost
        >>> x = jax.ShapeDtypeStruct((4096, 4096), jnp.bfloat16)
        >>> cost.predict(jnp.matmul, x, x, device="H100").seconds < 1e-3
        True
    """
    target, sizes = _device(device), dict(mesh or {})
    for share in overlap.values() if isinstance(overlap, Mapping) else [overlap]:
        if not 0 <= share <= 1:
            raise ValueError(f"overlap is {share}, but must be a share from 0 to 1 of the collectives' time")
    for axis, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"mesh axis {axis} is {size!r}, but must be a whole number of devices, 1 at least")
    given = (args, dict(kwargs or {}))
    called, arrays = arrays_of(lambda args, kwargs: f(*args, **kwargs), given)
    jaxpr = jax.make_jaxpr(called)(*arrays)
    program, notes = program_of(jaxpr, target.platform)
    for (_, x), value in zip(_leaves(given), program.arguments, strict=True):
        value.shards = max(value.shards, _parts(x))
    found_axes = {axis: n for step, _ in program.all_steps() for axis, n in step.axes.items()}
    for axis, n in sizes.items():
        if found_axes and found_axes.get(axis, n) != n:
            raise ValueError(f"mesh axis {axis} is {n}, but f runs under a shard_map in which it is {found_axes[axis]}")
    sizes = {**found_axes, **sizes}
    clock = _Clock(target, tuple(kernels), overlap)
    parts, plan = clock.run(program, _donated(f, program, given, donate_argnums))
    exchanged = [clock.exchange(one) for one in collectives]
    if any(n > 1 for n in sizes.values()) and not (exchanged or found_axes):
        raise ValueError(
            f"mesh {sizes}: f exchanges nothing between devices; write it under jax.shard_map, or give "
            "collectives=[…], such as the gradients' all-reduce"
        )
    again = sum(s.cost.matmul * times for s, times in program.all_steps() if s.recomputed)
    parts = [*parts, *exchanged]
    return Prediction(
        target,
        sizes,
        tuple(parts),
        plan,
        _named(given, program),
        sum(part.matmul for part in parts) - again,
        clock.peak(program),
        notes,
    )


def _device(name: str | Device) -> Device:
    return device(name)


class _Clock:
    """Times regions on a device."""

    def __init__(self, target: Device, kernels: tuple[str, ...], overlap: float | Mapping[str, float]) -> None:
        self.device, self.kernels, self.overlap = target, kernels, overlap

    def run(self, program: Program, donated: frozenset[Value] = frozenset()) -> tuple[list[Part], Lifetimes]:
        """Return the parts of a program, loops taken apart, and its memory."""
        formed = regions(program, self.device.fusion, self.kernels)
        parts: list[Part] = []
        inner: dict[Region, int] = {}
        for region in formed:
            bodies = [body for step in region.steps for body in step.bodies]
            if not bodies:
                parts.append(self.part(region))
                continue
            for body in bodies:
                below, plan = self.run(body)
                trips = region.steps[0].trips
                parts += [_repeated(part, trips, region.steps[0].scope) for part in below]
                inner[region] = max(inner.get(region, 0), plan.temporaries + plan.outputs)
        return parts, lifetimes(program, formed, donated, inner)

    def part(self, region: Region) -> Part:
        """Return one region's figures, and the larger of its times."""
        scope, cost = _scope(region), region.cost
        if region.kind == fusion.COLLECTIVE and (one := _collective(region.steps[0])) is not None:
            return self.exchange(one)
        share, target = self.device.efficiency, self.device
        moved = region.read + region.written
        times = {
            "matmul": sum(self._product(step) for step in region.steps) / share.matmul,
            "vector": cost.elementwise / target.vector + cost.transcendental / target.transcendental,
            "memory": moved / target.stream(moved) / share.memory,
        }
        bound = max(times, key=lambda name: times[name])
        seconds = times[bound] + target.launch
        if target.launch > times[bound]:
            bound = "launch"
        return Part(scope, region.kind, 1, cost.matmul, cost.elementwise, cost.transcendental, moved, seconds, bound)

    def exchange(self, one: Collective) -> Part:
        """Return a collective as a part: the bytes that a device sends, over its link."""
        target, overlap = self.device, self.overlap
        if not target.link:
            raise ValueError(
                f"{target.name} has no link in the table: {one.kind} cannot send its {one.payload:,} bytes"
            )
        moved = float(sent(one.kind, one.devices, one.payload * one.times))
        shares = [overlap.get(axis, 0.0) for axis in one.axes] if isinstance(overlap, Mapping) else [overlap]
        seconds = moved / target.link
        return Part(
            one.scope, fusion.COLLECTIVE, one.times, 0, 0, 0, round(moved), seconds, "link", min(shares, default=0.0)
        )

    def _product(self, step: Step) -> float:
        """Seconds of a step's matrix FLOPs at the sustained rate."""
        if not step.cost.matmul:
            return 0.0
        batch = 1
        if step.primitive == "dot_general":
            (_, (dims, _)), shape = step.eqn.params["dimension_numbers"], shape_of(step.eqn.invars[0])
            for d in dims:
                batch *= shape[d]
        return step.cost.matmul / self.device.rate(self._dtype(step), step.cost.matmul / batch)

    def _dtype(self, step: Step) -> str:
        """The dtype at which the matrix units run: float32 products use tf32 where there is such a rate."""
        name = dtype_of(step.eqn.invars[0]).name
        return "tf32" if name == "float32" and "tf32" in self.device.matmul else name

    def peak(self, program: Program) -> float:
        """Return the peak at the dtype of most matrix FLOPs."""
        flops: dict[str, int] = {}
        for step, times in program.all_steps():
            if step.cost.matmul:
                name = self._dtype(step)
                flops[name] = flops.get(name, 0) + step.cost.matmul * times
        name = max(flops, key=lambda key: flops[key], default="float32")
        return self.device.matmul.get(name, self.device.matmul["float32"])


def _collective(step: Step) -> Collective | None:
    """The collective of a step inside `shard_map`; None where it exchanges nothing."""
    kind = next((kind for name, kind in _KINDS.items() if step.primitive.startswith(name)), None)
    given = step.eqn.params.get("axes", step.eqn.params.get("axis_name", ()))
    axes = tuple(a for a in (given if isinstance(given, tuple | list) else (given,)) if a in step.axes)
    devices = 1
    for axis in axes:
        devices *= step.axes[axis]
    if kind is None or devices == 1:
        return None
    side = step.eqn.outvars if kind == "all-gather" else step.eqn.invars
    return Collective(kind, axes, devices, sum(nbytes(v) for v in side), 1, step.scope)


def _repeated(part: Part, trips: int, scope: str) -> Part:
    figures = {name: getattr(part, name) * trips for name in ("times", *Part._fields[3:8])}
    return part._replace(scope="/".join(filter(None, (scope, part.scope))), **figures)


def _scope(region: Region) -> str:
    return region.kernel or (region.main.scope if region.steps else "")


def _longest(parts: Sequence[Part]) -> str:
    seconds: dict[str, float] = {}
    for part in parts:
        seconds[part.bound] = seconds.get(part.bound, 0.0) + part.seconds
    return max(seconds, key=lambda name: seconds[name])


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g}" if seconds < 1 else f"{seconds * 1e3:,.0f}"


def _donated(f: Any, program: Program, given: Any, positions: Sequence[int]) -> frozenset[Value]:
    """The arguments whose memory outputs may take: those given, or those that `jax.jit` donates."""
    marks = [path[0].idx == 0 and path[1].idx in positions for path, _ in _leaves(given)]
    if hasattr(f, "trace") and not positions:
        info = jax.tree.leaves(f.trace(*given[0], **given[1]).args_info, is_leaf=lambda x: hasattr(x, "donated"))
        marks = [one.donated for one in info] if len(info) == len(marks) else marks
    return frozenset(v for v, mark in zip(program.arguments, marks, strict=True) if mark)


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


def _named(given: Any, program: Program) -> dict[str, int]:
    """Bytes of the arguments by the first two parts of their paths: `0.params`, `0.opt_state`, `1`."""
    found: dict[str, int] = {}
    for (path, _), value in zip(_leaves(given), program.arguments, strict=True):
        keys = [str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", key)))) for key in path[1:3]]
        name = f"argument {'.'.join(keys)}"
        found[name] = found.get(name, 0) + value.bytes
    return found
