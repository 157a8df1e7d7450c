"""A program as regions, each one pass over memory, formed by a `FusionModel`."""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Any

from jax.extend.core import Literal

from refgrad.cost.predict import fusion
from refgrad.cost.predict.fusion import ALIAS, MAP, PRODUCT, REDUCE, UPDATE, FusionModel
from refgrad.cost.predict.steps import Program, Step, Value
from refgrad.cost.types import Cost
from refgrad.jaxpr.avals import shape_of

_OPEN = (MAP, REDUCE, PRODUCT)


@dataclasses.dataclass(eq=False)
class Region:
    """Steps that are computed together; `kind` is that of the step that it is about."""

    kind: str
    steps: list[Step]
    reads: dict[Value, int] = dataclasses.field(default_factory=dict)
    """Array from outside → bytes read of it."""
    writes: list[Value] = dataclasses.field(default_factory=list)
    written: int = 0
    """Bytes written: of an update in place only what changes."""
    kernel: str = ""
    """The scope of the hand-written kernel that it is; "" for a region of the compiler's."""
    widest: tuple[int, ...] = ()
    """The largest shape over which it runs."""
    floating: set[Value] = dataclasses.field(default_factory=set)
    """Results that each reader's region computes for itself: never written."""
    is_copy: bool = False
    """True for a copy of what it reads, in another order."""
    closed: set[Value] = dataclasses.field(default_factory=set)
    """Results that nothing in the region can go on from."""

    @property
    def read(self) -> int:
        """Bytes read."""
        return sum(self.reads.values())

    @property
    def cost(self) -> Cost:
        """FLOPs of the steps; those of a loop are in its bodies."""
        total = Cost()
        for step in self.steps:
            total = total.plus(step.cost)
        return total

    @property
    def main(self) -> Step:
        """The step that names the region: its product, or the last one."""
        return next((s for s in self.steps if fusion.kind_of(s) == self.kind), self.steps[-1])


class Links:
    """Who makes and who reads each array of a program, aliases resolved."""

    def __init__(self, program: Program, strided: bool = False) -> None:
        self.program, self.strided = program, strided
        self.alias: dict[Value, Value | None] = {}
        self.maker: dict[Value, Step] = {}
        self.steps: list[Step] = []
        seen: dict[Any, Step] = {}
        for step in program.steps:
            kind = fusion.kind_of(step)
            if kind in (MAP, REDUCE) and (same := seen.setdefault(self._key(step), step)) is not step:
                self.alias.update(zip(step.makes, same.makes, strict=True))
                continue
            turns = self.strided and step.primitive == "transpose"
            if (kind == ALIAS or turns or self._turns_product(step)) and step.makes:
                for i, made in enumerate(step.makes):
                    self.alias[made] = self.of(step.reads[i] if i < len(step.reads) else None)
                continue
            self.steps.append(step)
            self.maker.update(dict.fromkeys(step.makes, step))
        self.results = {v for v in map(self.of, program.results) if v is not None}
        self.readers: dict[Value, list[Step]] = {}
        for step in self.steps:
            for value in dict.fromkeys(self.reads(step)):
                self.readers.setdefault(value, []).append(step)

    def _turns_product(self, step: Step) -> bool:
        """Return True for the transposition of a product, which the product writes as it is read."""
        maker = None
        if step.primitive == "transpose" and (value := self.of(step.reads[0])) is not None:
            maker = self.maker.get(value)
        return maker is not None and fusion.kind_of(maker) == PRODUCT

    def _key(self, step: Step) -> Any:
        """A key that only steps of the same result share: one of them is computed."""
        operands = tuple(
            repr(v.val) if isinstance(v, Literal) else id(self.of(value))
            for v, value in zip(step.eqn.invars, step.reads, strict=True)
        )
        return step.primitive, operands, str(step.eqn.params), str(step.eqn.outvars[0].aval)

    def of(self, value: Value | None) -> Value | None:
        """Return the array that a value is, whichever its shape."""
        while value in self.alias:
            value = self.alias[value]
        return value

    def reads(self, step: Step) -> Iterator[Value]:
        """Yield the arrays that a step reads."""
        for value in step.reads:
            found = self.of(value)
            if found is not None:
                yield found

    def parts(self, step: Step) -> Iterator[tuple[Value, int]]:
        """Yield each array that a step reads, with the bytes."""
        for i, value in enumerate(step.reads):
            found = self.of(value)
            if found is not None:
                yield found, fusion.bytes_read(step, i)


def regions(program: Program, model: FusionModel, kernels: tuple[str, ...] = ()) -> list[Region]:
    """Return the regions of a program in an order in which they can run; loops hold their own programs.

    `kernels` are scopes that one hand-written kernel computes: every run of consecutive steps below one is a region.
    """
    links = Links(program, model.strided and not model.recompute)
    formed = _Recomputing(links, model).run() if model.recompute else _Grower(links, model, kernels).run()
    return _finished(formed, links, model)


def _finished(formed: list[Region], links: Links, model: FusionModel) -> list[Region]:
    """Fill in what each region reads from outside, and writes for others or as a result."""
    inside = [set(map(id, region.steps)) for region in formed]
    for region, own in zip(formed, inside, strict=True):
        if region.is_copy:
            continue
        if model.recompute:
            region.writes = list(region.steps[-1].makes)
        else:
            region.writes = [
                value
                for value in dict.fromkeys(v for step in region.steps for v in step.makes)
                if value not in region.floating
                and (value in links.results or any(id(reader) not in own for reader in links.readers.get(value, ())))
            ]
        region.reads = _read(region, links)
        region.written = sum(_written(links.maker[value], value) for value in region.writes)
    return formed


def _read(region: Region, links: Links) -> dict[Value, int]:
    """Bytes read of each array from outside: of what only slices or gathers go on to, no more than these take."""
    made = {value for step in region.steps for value in step.makes}
    share: dict[Value, float] = dict.fromkeys(region.writes, 1.0)  # of its elements, that the region computes
    whole: dict[Value, float] = {}
    for step in reversed(region.steps):
        part = max((share.get(value, 0.0) for value in step.makes), default=1.0)
        for value, nbytes in links.parts(step):
            taken = part * nbytes / max(value.bytes, 1)
            if value in made:
                share[value] = min(1.0, share.get(value, 0.0) + taken)
            else:
                whole[value] = min(1.0, whole.get(value, 0.0) + taken)
    return {value: round(taken * value.bytes) for value, taken in whole.items()}


def _written(step: Step, value: Value) -> int:
    return min(value.bytes, fusion.updated(step)) if fusion.kind_of(step) == UPDATE else value.bytes


class _Recomputing:
    """One region for each cluster, and for each map that is stored with the maps that are not read from memory."""

    def __init__(self, links: Links, model: FusionModel) -> None:
        self.links, self.model = links, model
        self.cluster = _clusters(links, model)
        self.stored: set[Value] = set()
        self.roots: dict[Step, set[Step]] = {}
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
                steps: dict[Step, None] = {}
                self._collect(step, steps)
                found.append(Region(fusion.kind_of(step), list(steps)))
        return found

    def _copies(self, steps: list[Step]) -> Iterator[Region]:
        """Copies of operands that a product reads in another order, where others read them as they are."""
        for step in steps:
            for i in fusion.copied(step) if self.model.copies else ():
                value = self.links.of(step.reads[i])
                if value is None:
                    continue
                maker = self.links.maker.get(value)
                own = maker is not None and fusion.kind_of(maker) == MAP and len(self.links.readers[value]) == 1
                if not own:
                    yield Region(MAP, [], reads={value: value.bytes}, writes=[value], written=value.bytes, is_copy=True)

    def _root(self, step: Step) -> None:
        """Note the regions that compute a step: its own where it is stored."""
        stored = fusion.kind_of(step) != MAP
        roots: set[Step] = set()
        for value in step.makes:
            readers = self.links.readers.get(value, [])
            taking = [r for r in readers if self._takes(r)]
            stored |= value in self.links.results or (len(taking) < len(readers) and not fusion.is_constant(step))
            roots.update(*(self.roots[r] for r in taking))
        stored |= len(roots) > 1 and fusion.is_expensive(step)
        if stored:
            self.stored.update(step.makes)
        self.roots[step] = {step} if stored else roots

    def _takes(self, reader: Step) -> bool:
        return reader not in self.cluster and fusion.kind_of(reader) == MAP

    def _collect(self, step: Step, steps: dict[Step, None]) -> None:
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


def _clusters(links: Links, model: FusionModel) -> dict[Step, list[Step]]:
    """Each step of a cluster, with the cluster: its one result first. A cluster has a reduction or a product."""
    cluster: dict[Step, list[Step]] = {}
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


class _Grower:
    """Every step joins the region of an operand where it can, else it starts one.

    A cheap map of arguments alone waits for its readers, and is computed in the region of each.
    """

    def __init__(self, links: Links, model: FusionModel, kernels: tuple[str, ...]) -> None:
        self.links, self.model, self.kernels = links, model, frozenset(kernels)
        self.formed: list[Region] = []
        self.home: dict[Value, int] = {}
        self.before: list[int] = []  # bit mask of the regions that must run before each
        self.waiting: dict[Value, Step] = {}
        self.open = -1  # the kernel's region that the last steps are in

    def run(self) -> list[Region]:
        """Return the regions in an order in which they can run."""
        for step in self.links.steps:
            self._place(step)
        order = sorted(range(len(self.formed)), key=lambda i: (self.before[i].bit_count(), i))
        return [self.formed[i] for i in order]

    def _place(self, step: Step) -> None:
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

    def _place_in_kernel(self, step: Step, kernel: str, homes: Iterable[int]) -> None:
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

    def _waits(self, step: Step) -> bool:
        """Return True for a map that every reader can compute."""
        readers = [r for value in step.makes for r in self.links.readers.get(value, ())]
        cheap = not fusion.is_expensive(step) and not self.links.results & set(step.makes)
        return cheap and all(_kernel_of(r, self.kernels) or fusion.kind_of(r) in (MAP, REDUCE) for r in readers)

    def _join(self, home: int, step: Step, others: int) -> None:
        new = others & ~self.before[home]
        if new:
            self.before[home] |= new
            for i, mask in enumerate(self.before):
                if mask >> home & 1:
                    self.before[i] |= new
        self._add(home, step)

    def _add(self, home: int, step: Step) -> None:
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

    def _joins(self, step: Step, kind: str, region: Region) -> bool:
        if region.kernel:
            return False
        if region.kind not in _OPEN or kind not in (MAP, REDUCE) or step.primitive in fusion.PARTIAL:
            return False
        if region.kind == PRODUCT:
            alike = _elements(fusion.domain(step)) == _elements(shape_of(region.steps[0].eqn.outvars[0]))
            return self.model.epilogue and kind == MAP and alike
        return region.closed.isdisjoint(self.links.reads(step)) and _share_rows(fusion.domain(step), region.widest)


def _kernel_of(step: Step, kernels: frozenset[str]) -> str:
    """The scope down to the kernel's name and its pass, which one call of it shares; "" outside every kernel."""
    path = step.scope.split("/")
    at = next((i for i, name in enumerate(path) if name in kernels), None)
    return "" if at is None else "/".join(path[: at + 1])


def _row_count(step: Step) -> int:
    return math.prod(fusion.domain(step)[:-1])


def _share_rows(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Return True where two shapes have the same elements, or one is the other's rows."""
    small, large = sorted((_elements(one), _elements(other)))
    if small == large:
        return True
    trimmed = [d for d in min(one, other, key=_elements) if d > 1]
    return trimmed == [d for d in max(one, other, key=_elements) if d > 1][: len(trimmed)]


def _elements(shape: tuple[int, ...]) -> int:
    return math.prod(shape)
