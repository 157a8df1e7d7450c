"""`Count`: what a program costs, as exact Python integers that can be sliced, added and printed.

A count is one mapping: where the work is done (`Site`) → what it costs there (`Cost`). Every view,
by scope, by primitive, by source line, is a partition of that mapping, so that it sums to the whole.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from refgrad._text import short_path, table


class Cost(NamedTuple):
    """The cost of one piece of work: floating-point and integer operations, and bytes.

    Attributes:
      matmul: FLOPs of dots and convolutions; a multiplication and an addition are two.
      elementwise: every other operation on an element, integer and boolean ones too; reductions; comparisons.
      transcendental: exp, log, tanh, sqrt, …: counted apart from FLOPs, as XLA does.
      read: bytes read, each equation for itself (nothing is fused).
      written: bytes written, each equation for itself.

    Example:
      >>> from refgrad import cost
      >>> cost.Cost(matmul=60, read=84).times(2).matmul
      120
    """

    matmul: int = 0
    elementwise: int = 0
    transcendental: int = 0
    read: int = 0
    written: int = 0

    @staticmethod
    def sum(costs: Iterable["Cost"]) -> "Cost":
        """Field by field: the sum of all."""
        return Cost(*map(sum, zip(Cost(), *costs, strict=True)))

    def plus(self, other: "Cost") -> "Cost":
        """Field by field: self + other."""
        return Cost(*map(int.__add__, self, other))

    def times(self, n: int) -> "Cost":
        """Field by field: n · self."""
        return Cost(*(n * x for x in self))


class Operation(NamedTuple):
    """One run of an equation, in words that do not depend on the program around it."""

    operands: str = ""
    """The types of its operands, such as "f32[8,16] f32[16]"."""
    results: str = ""
    """The types of its results."""
    part: str = ""
    """The part that it has in the program: "bias", "fan-in", or "" for none in particular."""
    product: str = ""
    """The whole product that a product is a step of, as its factors and its result."""
    backward: bool = False
    """True in the transpose of a program that was differentiated."""
    each: Cost = Cost()
    """The cost of one run."""


class Site(NamedTuple):
    """A place where work is done. `Cost` at a site is the total over all its trips and devices.

    Attributes:
      scope: `jax.named_scope` path, such as "block/attn"; "" outside every scope.
      primitive: the name of the JAX primitive.
      source: file:line:column (function) of the caller's code.
      trips: the number of times that the enclosing loops run it.
      devices: the number of devices that run it: more than one inside `shard_map`.
      recomputed: True where `jax.checkpoint` computes again, in the backward pass, what the forward pass had computed.
      loop: the enclosing loops of unknown trip count (one trip is counted), from the outermost.
      unknown: True where the primitive's cost is not known (and was counted as 0 on request).
      operation: the operation that is done there.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import cost
      >>> (site,) = cost.count(jnp.matmul, jnp.ones((2, 3)), jnp.ones((3, 5))).sites
      >>> site.primitive, site.trips
      ('dot_general', 1)
    """

    scope: str
    primitive: str
    source: str
    trips: int = 1
    devices: int = 1
    recomputed: bool = False
    loop: str = ""
    unknown: bool = False
    operation: Operation = Operation()


@dataclass(frozen=True)
class Count:
    """The cost of a program. `+` adds programs, `n * count` repeats one; `str()` is a table by scope.

    Attributes:
      sites: place → its cost.
      notes: the assumptions behind the number: branches chosen, loops of unknown length, primitives of unknown cost.

    Example:
      >>> import jax.numpy as jnp
      >>> from refgrad import cost
      >>> count = cost.count(lambda x, w: jnp.tanh(x @ w), jnp.ones((2, 3)), jnp.ones((3, 5)))
      >>> count.matmul, count.transcendental, (2 * count).matmul
      (60, 10, 120)
    """

    sites: Mapping[Site, Cost]
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> Cost:
        """All fields at once."""
        return Cost.sum(self.sites.values())

    @property
    def matmul(self) -> int:
        """FLOPs of dots and convolutions."""
        return self.total.matmul

    @property
    def elementwise(self) -> int:
        """FLOPs of everything else."""
        return self.total.elementwise

    @property
    def transcendental(self) -> int:
        """Transcendental operations, which `flops` does not include."""
        return self.total.transcendental

    @property
    def flops(self) -> int:
        """matmul + elementwise: XLA's "flops"."""
        return self.total.matmul + self.total.elementwise

    @property
    def bytes(self) -> int:
        """Bytes read and written, each equation for itself: an upper bound, which fusion undercuts."""
        return self.total.read + self.total.written

    @property
    def intensity(self) -> float:
        """FLOPs per byte moved, unfused; 0 where nothing moves."""
        return self.flops / self.bytes if self.bytes else 0.0

    @property
    def by_scope(self) -> "Parts":
        """Scope path → the work done at exactly that path; the parts sum to the whole."""
        return self.partition(lambda site: site.scope)

    @property
    def by_primitive(self) -> "Parts":
        """Primitive's name → its part."""
        return self.partition(lambda site: site.primitive)

    @property
    def by_source(self) -> "Parts":
        """file:line:column (function) → its part."""
        return self.partition(lambda site: site.source)

    @property
    def recomputed(self) -> "Count":
        """The forward work that `jax.checkpoint` does again in the backward pass: a part of the whole."""
        return self.where(lambda site: site.recomputed)

    @property
    def per_trip(self) -> "Parts":
        """Loop of unknown length → the cost of ONE trip, which is what the whole contains of it."""
        return self.where(lambda site: bool(site.loop)).partition(lambda site: site.loop)

    @property
    def unknown(self) -> "Parts":
        """Primitive of unknown cost → its place (bytes are known, FLOPs read 0)."""
        return self.where(lambda site: site.unknown).partition(lambda site: site.primitive)

    @property
    def once(self) -> "Count":
        """The same program with every loop body counted once and on one device: as XLA counts it."""
        sites: dict[Site, Cost] = {}
        for site, cost in self.sites.items():
            one = Cost(*(x // (site.trips * site.devices) for x in cost))
            _add(sites, site._replace(trips=1, devices=1), one)
        return Count(sites, self.notes)

    @property
    def per_device(self) -> "Count":
        """One device's costs: its own share inside `shard_map`, the whole outside (XLA alone splits that)."""
        sites: dict[Site, Cost] = {}
        for site, cost in self.sites.items():
            _add(sites, site._replace(devices=1), Cost(*(x // site.devices for x in cost)))
        return Count(sites, self.notes)

    def within(self, scope: str) -> "Count":
        """The work under the scope path, itself and everything nested below it."""
        return self.where(lambda site: site.scope == scope or site.scope.startswith(scope + "/"))

    def where(self, keep: Callable[[Site], bool]) -> "Count":
        """The part at the sites that `keep` accepts."""
        return Count({site: cost for site, cost in self.sites.items() if keep(site)}, self.notes)

    def partition(self, key: Callable[[Site], str]) -> "Parts":
        """key(site) → the part at the sites of that key, in order of appearance."""
        parts: dict[str, dict[Site, Cost]] = {}
        for site, cost in self.sites.items():
            parts.setdefault(key(site), {})[site] = cost
        return Parts((name, Count(sites, self.notes)) for name, sites in parts.items())

    def __add__(self, other: "Count") -> "Count":
        if not isinstance(other, Count):
            return NotImplemented
        sites = dict(self.sites)
        for site, cost in other.sites.items():
            _add(sites, site, cost)
        return Count(sites, tuple(dict.fromkeys((*self.notes, *other.notes))))

    def __mul__(self, n: int) -> "Count":
        if not isinstance(n, int) or n < 0:
            raise ValueError(f"a count can be repeated a whole number of times, 0 or more, not {n!r}")
        sites: dict[Site, Cost] = {}
        if n:
            for site, cost in self.sites.items():
                _add(sites, site._replace(trips=n * site.trips), cost.times(n))
        return Count(sites, self.notes)

    __rmul__ = __mul__

    def save(self, path: Any) -> None:
        """Write the count to a file that `cost.load` reads, whole or not at all.

        Args:
          path: the file, JSON.

        Raises:
          OSError: where it cannot be written.
        """
        from refgrad.cost.comparison.program import of_count  # which is made of counts

        of_count(self).save(path)

    def speedscope(self, path: Any, of: str = "flops") -> None:
        """Write one figure as a flame graph that https://www.speedscope.app opens, by scope, line and primitive.

        Args:
          path: the file, JSON.
          of: "flops", "transcendentals", "bytes" or "collectives".

        Raises:
          ValueError: for another figure.
          OSError: where the file cannot be written.
        """
        from refgrad.cost import speedscope  # which is made of counts
        from refgrad.cost.comparison.items import of_count

        speedscope.write(path, [speedscope.profile(of_count(self), of)])

    def tree(self, depth: int | None = None) -> str:
        """A table by scope, each line with all that is nested below it, down to `depth` levels (None: all)."""
        if depth is not None and depth < 0:
            raise ValueError(f"depth must be 0 or more levels, or None for all of them, not {depth}")
        rows, flops = [], self.flops
        for scope, cost in self.nested(depth):
            label = "  " * (scope.count("/") + 1) + scope.rsplit("/", 1)[-1] if scope else "total"
            rows.append([label, *_cells(cost, flops)])
        return "\n".join([table(["scope", *HEADER], rows), *(f"note: {note}" for note in self.notes)])

    def nested(self, depth: int | None = None) -> list[tuple[str, Cost]]:
        """("", everything), then every scope path with all that lies below it, children after their parent."""
        tree: dict[str, dict] = {}
        costs: dict[str, Cost] = {"": self.total}
        for site, cost in self.sites.items():
            branch, path = tree, ""
            for name in site.scope.split("/")[:depth] if site.scope else []:
                branch, path = branch.setdefault(name, {}), f"{path}/{name}" if path else name
                costs[path] = costs.get(path, Cost()).plus(cost)
        paths: list[str] = []
        _reading_order(tree, "", paths)
        return [(path, costs[path]) for path in ("", *paths)]

    def __str__(self) -> str:
        return self.tree(depth=3)


class Parts(dict[str, Count]):
    """The parts of a count, by name; prints as a table with percentages, the costliest first."""

    def __str__(self) -> str:
        flops = sum(part.flops for part in self.values())
        costliest = sorted(self.items(), key=lambda item: (-item[1].flops, -item[1].bytes))
        return table(
            ["part", *HEADER], [[short_path(name) or "(none)", *_cells(part.total, flops)] for name, part in costliest]
        )


HEADER = ("flops", "matmul", "elementwise", "transcendental", "bytes", "flops/byte", "% flops")


def _cells(cost: Cost, whole: int) -> list[str]:
    flops, moved = cost.matmul + cost.elementwise, cost.read + cost.written
    numbers = (flops, cost.matmul, cost.elementwise, cost.transcendental, moved)
    intensity = f"{flops / moved:.2f}" if moved else ""
    return [*(f"{n:,}" for n in numbers), intensity, f"{flops / whole:.1%}" if whole else ""]


def _reading_order(tree: Mapping[str, Any], prefix: str, paths: list[str]) -> None:
    """Append every path of the tree, each before the paths nested below it."""
    for name, below in tree.items():
        path = f"{prefix}/{name}" if prefix else name
        paths.append(path)
        _reading_order(below, path, paths)


def _add(sites: dict[Site, Cost], site: Site, cost: Cost) -> None:
    sites[site] = sites[site].plus(cost) if site in sites else cost
