"""Times of regions and of collectives on a device."""

from collections.abc import Iterable, Mapping

from refgrad.cost.collectives import Collective, sent
from refgrad.cost.predict import fusion
from refgrad.cost.predict.devices import Device
from refgrad.cost.predict.links import Region
from refgrad.cost.predict.memory import Lifetimes, lifetimes
from refgrad.cost.predict.prediction import Part
from refgrad.cost.predict.regions import regions
from refgrad.cost.predict.steps import Schedule, TimedStep, Value
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


class Clock:
    """Times regions on a device."""

    def __init__(self, target: Device, kernels: tuple[str, ...], overlap: float | Mapping[str, float]) -> None:
        self.device, self.kernels, self.overlap = target, kernels, overlap

    def run(self, schedule: Schedule, donated: frozenset[Value] = frozenset()) -> tuple[list[Part], Lifetimes]:
        """Return the parts of a program, loops taken apart, and its memory."""
        formed = regions(schedule, self.device.fusion, self.kernels)
        parts: list[Part] = []
        inner: dict[Region, int] = {}
        for region, touched in zip(formed, _touched(formed), strict=True):
            bodies = [body for step in region.steps for body in step.bodies]
            if not bodies:
                parts.append(self.part(region, touched))
                continue
            for body in bodies:
                below, plan = self.run(body)
                trips = region.steps[0].trips
                parts += [_repeated(part, trips, region.steps[0].scope) for part in below]
                inner[region] = max(inner.get(region, 0), plan.temporaries + plan.outputs)
        return parts, lifetimes(schedule, formed, donated, inner, self.device.fusion)

    def part(self, region: Region, touched: list[tuple[int, int]]) -> Part:
        """Return one region's figures, and the larger of its times; `touched` is its row of `_touched`."""
        scope, cost = _scope(region), region.cost
        if region.kind == fusion.COLLECTIVE and (one := _collective(region.steps[0])) is not None:
            return self.exchange(one)
        share, target = self.device.efficiency, self.device
        moved = region.read + region.written
        times = {
            "matmul": sum(self._product(step) for step in region.steps) / share.matmul,
            "vector": cost.elementwise / target.vector
            + sum(step.cost.transcendental / target.function(step.primitive) for step in region.steps),
            "memory": sum(n / target.stream(reach) for n, reach in touched) / share.memory,
        }
        if region.turned:
            times["memory"] = max(
                times["memory"], sum(target.turning(v.aval) for v, n in region.reads.items() if n >= region.written)
            )
        bound = max(times, key=lambda name: times[name])
        seconds = times[bound] + target.launch
        if target.launch > times[bound]:
            bound = "launch"
        return Part(scope, region.kind, 1, cost.matmul, cost.elementwise, cost.transcendental, moved, seconds, bound)

    def host(self, plan: Lifetimes, results: Iterable[Value | None]) -> list[Part]:
        """Return the call of the program and the first touch of its new memory, where the device has such a host."""
        given = self.device.allocation
        if given is None:
            return []
        blocks = [plan.temporaries, *(value.bytes for value in dict.fromkeys(results) if value is not None)]
        seconds = given.call + sum(n for n in blocks if n >= given.block) / given.first_touch
        return [Part("", "host", 1, 0, 0, 0, 0, seconds, "host")]

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

    def _product(self, step: TimedStep) -> float:
        """Seconds of a step's matrix FLOPs at the sustained rate."""
        if not step.cost.matmul:
            return 0.0
        batch = 1
        if step.primitive == "dot_general":
            (_, (dims, _)), shape = step.eqn.params["dimension_numbers"], shape_of(step.eqn.invars[0])
            for d in dims:
                batch *= shape[d]
        return step.cost.matmul / self.device.rate(self._dtype(step), step.cost.matmul / batch)

    def _dtype(self, step: TimedStep) -> str:
        """The dtype at which the matrix units run: float32 products use tf32 where there is such a rate."""
        name = dtype_of(step.eqn.invars[0]).name
        return "tf32" if name == "float32" and "tf32" in self.device.matmul else name

    def peak(self, schedule: Schedule) -> float:
        """Return the peak at the dtype of most matrix FLOPs."""
        flops: dict[str, int] = {}
        for step, times in schedule.all_steps():
            if step.cost.matmul:
                name = self._dtype(step)
                flops[name] = flops.get(name, 0) + step.cost.matmul * times
        name = max(flops, key=lambda key: flops[key], default="float32")
        return self.device.matmul.get(name, self.device.matmul["float32"])


def _touched(formed: list[Region]) -> list[list[tuple[int, int]]]:
    """Return, by region and array, its bytes and those touched since it was: a cache holds it if it is larger.

    What nothing has touched before comes from the run before, as in a step after a step. A result lies where something
    has died, as near as the region's own arrays.
    """
    whole = sum(region.read + region.written for region in formed)
    rows, last, now = [], {}, 0
    for region in formed:
        own = region.read + region.written
        row = [(n, now - last[value] + own if value in last else whole) for value, n in region.reads.items()]
        rows.append([*row, (region.written, own)])
        now += own
        last |= dict.fromkeys([*region.reads, *region.writes], now)
    return rows


def _collective(step: TimedStep) -> Collective | None:
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
