"""A predicted step: its parts, its time and its memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from refgrad._text import table
from refgrad.cost.predict import fusion
from refgrad.cost.predict.devices import Device
from refgrad.cost.predict.memory import Lifetimes


class Part(NamedTuple):
    """One region, or one collective, of one device."""

    scope: str
    kind: str
    """product, map, reduce, update, kernel, library, collective, or host: the call and new memory."""
    times: int
    """Number of runs in a step; the other figures are those of all runs."""
    matmul: int
    elementwise: int
    transcendental: int
    bytes: int
    """Bytes read and written; those sent, for a collective."""
    seconds: float
    bound: str
    """The larger time: matmul, vector, memory, link, launch or host."""
    hidden: float = 0.0
    """The share of a collective's time that is assumed to be hidden behind computation."""


@dataclass(frozen=True)
class Prediction:
    """One step of a program on one device of a mesh; prints as a table.

    Attributes:
      device: the device.
      mesh: axis → its size.
      parts: every fused region and every collective, in the order of the program.
      memory: bytes on one device, by how long they live.
      arguments: bytes of the arguments on one device, by name.
      model_flops: matrix FLOPs of one device without those that `jax.checkpoint` computes again.
      peak: FLOP/s by which MFU and HFU divide: the device's, at the dtype of most matrix FLOPs.
      notes: the assumptions behind the figures.

    Example:
      >>> import jax
      >>> from refgrad import cost
      >>> x = jax.ShapeDtypeStruct((4096, 4096), "bfloat16")
      >>> step = cost.predict(jax.numpy.matmul, x, x, device="H100")
      >>> step.fits, step.matmul_flops
      (True, 137438953472)
    """

    device: Device
    mesh: Mapping[str, int]
    parts: tuple[Part, ...]
    memory: Lifetimes
    arguments: Mapping[str, int]
    model_flops: int
    peak: float
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


def _longest(parts: Sequence[Part]) -> str:
    seconds: dict[str, float] = {}
    for part in parts:
        seconds[part.bound] = seconds.get(part.bound, 0.0) + part.seconds
    return max(seconds, key=lambda name: seconds[name])


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g}" if seconds < 1 else f"{seconds * 1e3:,.0f}"
