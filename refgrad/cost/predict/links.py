"""Regions of a program, and the links between its steps: who makes and who reads each array."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from jax.extend.core import Literal

from refgrad.cost.predict import fusion
from refgrad.cost.predict.fusion import ALIAS, MAP, PRODUCT, REDUCE, FusionModel
from refgrad.cost.predict.steps import Schedule, TimedStep, Value
from refgrad.cost.types import Cost


@dataclasses.dataclass(eq=False)
class Region:
    """Steps that are computed together; `kind` is that of the step that it is about."""

    kind: str
    steps: list[TimedStep]
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
    """True for a copy of what a region of its own writes too, in another order."""
    turned: bool = False
    """True where columns become rows, so that the arrays it reads are not read row by row."""
    closed: set[Value] = dataclasses.field(default_factory=set)
    """Results that nothing in the region can go on from."""

    @property
    def read(self) -> int:
        """Bytes read."""
        return sum(self.reads.values())

    @property
    def cost(self) -> Cost:
        """FLOPs of the steps; those of a loop are in its bodies."""
        return Cost.sum(step.cost for step in self.steps)

    @property
    def main(self) -> TimedStep:
        """The step that names the region: its product, or the last one."""
        return next((s for s in self.steps if fusion.kind_of(s) == self.kind), self.steps[-1])


class Links:
    """Who makes and who reads each array of a program, aliases resolved."""

    def __init__(self, schedule: Schedule, model: FusionModel) -> None:
        self.model = model
        self.alias: dict[Value, Value | None] = {}
        self.maker: dict[Value, TimedStep] = {}
        self.turned: set[TimedStep] = set()
        self.steps: list[TimedStep] = []
        seen: dict[Any, TimedStep] = {}
        for step in schedule.steps:
            kind = fusion.kind_of(step)
            if kind in (MAP, REDUCE) and (same := seen.setdefault(self._key(step), step)) is not step:
                self.alias.update(zip(step.makes, same.makes, strict=True))
                continue
            turns = model.strided and step.primitive == "transpose"
            if (kind == ALIAS or turns or self._turns_product(step)) and step.makes:
                for i, made in enumerate(step.makes):
                    self.alias[made] = self.of(step.reads[i] if i < len(step.reads) else None)
                continue
            self.steps.append(step)
            self.maker.update(dict.fromkeys(step.makes, step))
        self.results = {v for v in map(self.of, schedule.results) if v is not None}
        self.readers: dict[Value, list[TimedStep]] = {}
        for step in self.steps:
            for value in dict.fromkeys(self.reads(step)):
                self.readers.setdefault(value, []).append(step)

    def _turns_product(self, step: TimedStep) -> bool:
        """Return True for the transposition of a product, which the product writes as it is read."""
        maker = None
        if step.primitive == "transpose" and (value := self.of(step.reads[0])) is not None:
            maker = self.maker.get(value)
        if maker is None or fusion.kind_of(maker) != PRODUCT:
            return False
        if self.model.copies and not fusion.keeps_batch(maker, step):
            return False
        self.turned.add(maker)
        return True

    def _key(self, step: TimedStep) -> Any:
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

    def reads(self, step: TimedStep) -> Iterator[Value]:
        """Yield the arrays that a step reads."""
        for value in step.reads:
            found = self.of(value)
            if found is not None:
                yield found

    def parts(self, step: TimedStep) -> Iterator[tuple[Value, int]]:
        """Yield each array that a step reads, with the bytes."""
        for i, value in enumerate(step.reads):
            found = self.of(value)
            if found is not None:
                yield found, fusion.bytes_read(step, i)
