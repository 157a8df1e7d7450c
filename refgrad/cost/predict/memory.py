"""Memory of one device while a program runs, from the lifetimes of what its regions write."""

import heapq
from collections.abc import Sequence
from typing import NamedTuple

from refgrad.cost.predict.fusion import FusionModel
from refgrad.cost.predict.links import Links, Region
from refgrad.cost.predict.steps import Schedule, Value


class Lifetimes(NamedTuple):
    """Bytes on one device."""

    arguments: int
    outputs: int
    """Results that are not arguments; those that donation puts in an argument's place included."""
    aliased: int
    """Outputs in the place of donated arguments."""
    temporaries: int
    """The most that regions have stored and not yet read for the last time, results aside."""

    @property
    def peak(self) -> int:
        """Bytes in all."""
        return self.arguments + self.outputs - self.aliased + self.temporaries


def lifetimes(
    schedule: Schedule, formed: list[Region], donated: frozenset[Value], inner: dict[Region, int], model: FusionModel
) -> Lifetimes:
    """Run the regions in two orders, the schedule's and a greedy one, and take the one that needs less.

    `inner` are the temporaries of a loop's body. The greedy order takes, of the regions that are ready, the one that
    frees the most, as XLA's list scheduler does.
    """
    links = Links(schedule, model)
    results = {v for v in links.results if v not in schedule.arguments}
    arguments = sum(value.bytes for value in schedule.arguments)
    outputs = sum(value.bytes for value in results)
    room = sum(v.bytes for v in donated)
    plan = _Plan(formed, results, set(schedule.arguments), inner)
    temporaries = min(plan.run(range(len(formed))), plan.run(plan.greedy()))
    return Lifetimes(arguments, outputs, min(room, outputs), temporaries)


class _Plan:
    def __init__(
        self, formed: list[Region], results: set[Value], arguments: set[Value], inner: dict[Region, int]
    ) -> None:
        self.formed, self.inner = formed, inner
        self.results, self.fixed = results, results | arguments
        self.maker = {v: i for i, region in enumerate(formed) if not region.is_copy for v in region.writes}
        self.readers: dict[Value, list[int]] = {}
        for i, region in enumerate(formed):
            for value in region.reads:
                self.readers.setdefault(value, []).append(i)

    def run(self, order: Sequence[int]) -> int:
        """Return the most bytes alive at once in this order, beside the results' own memory.

        A temporary may lie where a result as large will be written later, or by a map that reads it last; and a map's
        result where an operand of the same size that nobody reads again has been.
        """
        place = {i: n for n, i in enumerate(order)}
        last = {value: max(place[i] for i in found) for value, found in self.readers.items()}
        free = sorted(
            ((v.bytes, place[self.maker[v]]) for v in self.results if v in self.maker), key=lambda slot: slot[0]
        )
        guests: set[Value] = set()
        alive = most = 0
        for n, i in enumerate(order):
            region = self.formed[i]
            made = [v for v in region.writes if v not in self.fixed and not region.is_copy]
            dying = [v for v in region.reads if last[v] == n and v in self.maker and v not in self.fixed | guests]
            stored = 0
            for value in made:
                ends = last.get(value, n)
                in_place = (value.bytes, ends) if self.formed[order[ends]].kind == "map" else None
                slot = next((s for s in free if (s[0] >= value.bytes and s[1] > ends) or s == in_place), None)
                if slot is not None:
                    free.remove(slot)
                    guests.add(value)
                else:
                    stored += value.bytes
            reused = max((v.bytes for v in dying if any(w.bytes == v.bytes for w in made)), default=0)
            reused = min(reused, stored) if region.kind == "map" else 0
            stored += region.written if region.is_copy else 0
            most = max(most, alive + stored - reused + self.inner.get(region, 0))
            kept = sum(v.bytes for v in made if v not in guests and v in last)
            alive += kept - sum(v.bytes for v in dying)
        return most

    def greedy(self) -> list[int]:
        """Return an order in which each next region is the ready one that frees the most."""
        waits = [
            {self.maker[v] for v in region.reads if self.maker.get(v, i) != i} for i, region in enumerate(self.formed)
        ]
        after: dict[int, list[int]] = {}
        for i, needs in enumerate(waits):
            for n in needs:
                after.setdefault(n, []).append(i)
        left = {value: len(found) for value, found in self.readers.items()}
        ready = [(-self._gain(i, left), i) for i, needs in enumerate(waits) if not needs]
        heapq.heapify(ready)
        order: list[int] = []
        done: set[int] = set()
        while ready:
            _, i = heapq.heappop(ready)
            if i in done:
                continue
            order.append(i)
            done.add(i)
            for reader in after.get(i, ()):
                waits[reader].discard(i)
            for value in self.formed[i].reads:
                left[value] -= 1
            changed = {r for v in self.formed[i].reads if left[v] == 1 for r in self.readers[v]} | set(after.get(i, ()))
            for reader in changed - done:  # a region may stand in the heap twice: the better entry comes first
                if not waits[reader]:
                    heapq.heappush(ready, (-self._gain(reader, left), reader))
        return order

    def _gain(self, i: int, left: dict[Value, int]) -> int:
        freed = sum(v.bytes for v in self.formed[i].reads if left[v] == 1 and v in self.maker and v not in self.fixed)
        return freed - self._made(i)

    def _made(self, i: int) -> int:
        return sum(v.bytes for v in self.formed[i].writes if v not in self.fixed and not self.formed[i].is_copy)
