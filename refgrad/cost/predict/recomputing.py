"""Regions of a compiler that computes cheap maps anew in each region that reads them, as XLA:CPU does."""

import math
from collections.abc import Iterator

from refgrad.cost.predict import fusion
from refgrad.cost.predict.fusion import MAP, PRODUCT, REDUCE, FusionModel
from refgrad.cost.predict.links import Links, Region
from refgrad.cost.predict.steps import TimedStep, Value


class Recomputing:
    """One region for each cluster, and for each map that is stored with the maps that are not read from memory."""

    def __init__(self, links: Links, model: FusionModel) -> None:
        self.links, self.model = links, model
        self.cluster = _clusters(links, model)
        self.stored: set[Value] = set()
        self.turned: set[TimedStep] = set()
        self.roots: dict[TimedStep, set[TimedStep]] = {}
        for step in reversed(links.steps):
            self._root(step)

    def run(self) -> list[Region]:
        """Return the regions in program order."""
        found = []
        for step in self.links.steps:
            members = self.cluster.get(step)
            if members is not None and members[0] is step:
                ordered = members[::-1]
                heavy = [fusion.kind_of(s) for s in ordered if fusion.kind_of(s) != MAP]
                found += self._copies(ordered)
                found.append(Region(PRODUCT if PRODUCT in heavy else heavy[0], ordered))
            elif members is None and self.roots[step] == {step}:
                found.append(Region(fusion.kind_of(step), self._computed(step)))
        for region in found:
            region.turned |= any(map(fusion.turns, region.steps)) or not self.turned.isdisjoint(region.steps)
        return found

    def _copies(self, steps: list[TimedStep]) -> Iterator[Region]:
        """Copies of operands that a product reads in another order, where others read them as they are."""
        for step in steps:
            found = fusion.copied(step, step in self.links.turned) if self.model.copies else {}
            for i, turned in found.items():
                value = self.links.of(step.reads[i])
                if value is None:
                    continue
                maker = self.links.maker.get(value)
                mapped = maker if maker is not None and self._takes(maker) else None
                if mapped is not None and len(self.links.readers[value]) == 1:
                    self.turned.update([mapped] if turned else [])
                    continue
                yield Region(
                    MAP,
                    [] if mapped is None or fusion.is_expensive(mapped) else self._computed(mapped),
                    {value: value.bytes},
                    [value],
                    value.bytes,
                    is_copy=True,
                    turned=turned,
                )

    def _root(self, step: TimedStep) -> None:
        """Note the regions that compute a step: its own where it is stored."""
        stored = fusion.kind_of(step) != MAP
        roots: set[TimedStep] = set()
        for value in step.makes:
            readers = self.links.readers.get(value, [])
            taking = [r for r in readers if self._takes(r)]
            stored |= value in self.links.results or (len(taking) < len(readers) and not fusion.is_constant(step))
            roots.update(*(self.roots[r] for r in taking))
        stored |= len(roots) > 1 and fusion.is_expensive(step)
        if stored:
            self.stored.update(step.makes)
        self.roots[step] = {step} if stored else roots

    def _takes(self, reader: TimedStep) -> bool:
        """Return True for a map outside the clusters."""
        return reader not in self.cluster and fusion.kind_of(reader) == MAP

    def _computed(self, step: TimedStep) -> list[TimedStep]:
        """Return a step behind the maps that are computed with it."""
        steps: dict[TimedStep, None] = {}
        self._collect(step, steps)
        return list(steps)

    def _collect(self, step: TimedStep, steps: dict[TimedStep, None]) -> None:
        """Add a step, behind the maps that are computed with it: stored ones again where they are cheap."""
        if fusion.kind_of(step) == MAP:
            for value in self.links.reads(step):
                maker = self.links.maker.get(value)
                if maker is None or maker in steps or not self._takes(maker):
                    continue
                again = fusion.is_one_array(maker) and not fusion.is_expensive(maker)
                if value not in self.stored or again:
                    self._collect(maker, steps)
        steps[step] = None


def _clusters(links: Links, model: FusionModel) -> dict[TimedStep, list[TimedStep]]:
    """Each step of a cluster, with the cluster: its one result first. A cluster has a reduction or a product."""
    cluster: dict[TimedStep, list[TimedStep]] = {}
    for step in reversed(links.steps):
        kind = fusion.kind_of(step)
        known = step.primitive in model.clustered and not (fusion.spreads_rows(step) or fusion.has_number(step))
        if kind not in (REDUCE, PRODUCT) and not (kind == MAP and known):
            continue
        readers = {r for value in step.makes for r in links.readers.get(value, ())}
        homes = {id(cluster[r]): cluster[r] for r in readers if r in cluster}
        sums = kind == REDUCE and step.primitive != "reduce_max"
        again = (sums or len(readers) > 1) and kind != PRODUCT and _row_count(step) < model.many_rows
        joins = len(homes) == 1 and not again and all(r in cluster and fusion.kind_of(r) != PRODUCT for r in readers)
        home = next(iter(homes.values())) if joins and not links.results & set(step.makes) else []
        if kind == PRODUCT and not any(fusion.kind_of(s) == REDUCE for s in home):
            home = []
        home.append(step)
        cluster[step] = home
    return {step: home for step, home in cluster.items() if any(fusion.kind_of(s) != MAP for s in home)}


def _row_count(step: TimedStep) -> int:
    return math.prod(fusion.domain(step)[:-1])
