"""Regions that grow: every step belongs to one, as in XLA:GPU, XLA:TPU and kernels written by hand."""

import math
from collections.abc import Iterable

from refgrad.cost.predict import fusion
from refgrad.cost.predict.fusion import MAP, PRODUCT, REDUCE, FusionModel
from refgrad.cost.predict.links import Links, Region
from refgrad.cost.predict.steps import TimedStep, Value
from refgrad.jaxpr.avals import shape_of

_OPEN = (MAP, REDUCE, PRODUCT)


class Grower:
    """Every step joins the region of an operand where it can, else it starts one.

    A cheap map of arguments alone waits for its readers, and is computed in the region of each.
    """

    def __init__(self, links: Links, model: FusionModel, kernels: tuple[str, ...]) -> None:
        self.links, self.model, self.kernels = links, model, frozenset(kernels)
        self.formed: list[Region] = []
        self.home: dict[Value, int] = {}
        self.before: list[int] = []  # bit mask of the regions that must run before each
        self.waiting: dict[Value, TimedStep] = {}
        self.open = -1  # the kernel's region that the last steps are in

    def run(self) -> list[Region]:
        """Return the regions in an order in which they can run."""
        for step in self.links.steps:
            self._place(step)
        order = sorted(range(len(self.formed)), key=lambda i: (self.before[i].bit_count(), i))
        return [self.formed[i] for i in order]

    def _place(self, step: TimedStep) -> None:
        kernel = _kernel_of(step, self.kernels)
        kind = fusion.kind_of(step)
        reads = list(self.links.reads(step))
        homes = dict.fromkeys(self.home[v] for v in reads if v in self.home)
        if kind == MAP and not homes and self._waits(step):
            self.waiting.update(dict.fromkeys(step.makes, step))
            return
        if kernel:
            self._place_in_kernel(step, kernel, homes)
            return
        for home in sorted(homes, reverse=True):
            others = self._before(other for other in homes if other != home)
            if not others >> home & 1 and self._joins(step, kind, self.formed[home]):
                self._join(home, step, others)
                return
        self.formed.append(Region(kind, []))
        self.before.append(self._before(homes))
        self._add(len(self.formed) - 1, step)

    def _place_in_kernel(self, step: TimedStep, kernel: str, homes: Iterable[int]) -> None:
        """Add a step to the kernel that is running, or start its region."""
        needs = self._before(home for home in homes if home != self.open)
        if self.open >= 0 and self.formed[self.open].kernel == kernel and not needs >> self.open & 1:
            self._join(self.open, step, needs)
            return
        self.formed.append(Region("kernel", [], kernel=kernel))
        self.before.append(self._before(homes))
        self.open = len(self.formed) - 1
        self._add(self.open, step)

    def _before(self, homes: Iterable[int]) -> int:
        mask = 0
        for home in homes:
            mask |= self.before[home] | 1 << home
        return mask

    def _waits(self, step: TimedStep) -> bool:
        """Return True for a map that every reader can compute."""
        readers = [r for value in step.makes for r in self.links.readers.get(value, ())]
        cheap = not fusion.is_expensive(step) and not self.links.results & set(step.makes)
        return cheap and all(_kernel_of(r, self.kernels) or fusion.kind_of(r) in (MAP, REDUCE) for r in readers)

    def _join(self, home: int, step: TimedStep, others: int) -> None:
        new = others & ~self.before[home]
        if new:
            self.before[home] |= new
            for i, mask in enumerate(self.before):
                if mask >> home & 1:
                    self.before[i] |= new
        self._add(home, step)

    def _add(self, home: int, step: TimedStep) -> None:
        region = self.formed[home]
        for value in self.links.reads(step):
            if value in self.waiting and self.waiting[value] not in region.steps:
                self._add(home, self.waiting[value])
                region.floating.update(self.waiting[value].makes)
        region.steps.append(step)
        if step.makes and step.makes[0] not in self.waiting:
            self.home.update(dict.fromkeys(step.makes, home))
        if not region.kernel:
            region.widest = max(region.widest, fusion.domain(step), key=_elements)
            if fusion.kind_of(step) == REDUCE and not fusion.reduces_rows(step):
                region.closed.update(step.makes)

    def _joins(self, step: TimedStep, kind: str, region: Region) -> bool:
        if region.kernel:
            return False
        if region.kind not in _OPEN or kind not in (MAP, REDUCE) or step.primitive in fusion.PARTIAL:
            return False
        if region.kind == PRODUCT:
            alike = _elements(fusion.domain(step)) == _elements(shape_of(region.steps[0].eqn.outvars[0]))
            return self.model.epilogue and kind == MAP and alike
        return region.closed.isdisjoint(self.links.reads(step)) and _share_rows(fusion.domain(step), region.widest)


def _kernel_of(step: TimedStep, kernels: frozenset[str]) -> str:
    """The scope down to the kernel's name and its pass, which one call of it shares; "" outside every kernel."""
    path = step.scope.split("/")
    at = next((i for i, name in enumerate(path) if name in kernels), None)
    return "" if at is None else "/".join(path[: at + 1])


def _share_rows(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Return True where two shapes have the same elements, or one is the other's rows."""
    small, large = sorted((_elements(one), _elements(other)))
    if small == large:
        return True
    trimmed = [d for d in min(one, other, key=_elements) if d > 1]
    return trimmed == [d for d in max(one, other, key=_elements) if d > 1][: len(trimmed)]


def _elements(shape: tuple[int, ...]) -> int:
    return math.prod(shape)
