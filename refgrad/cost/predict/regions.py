"""A program as regions, each one pass over memory, formed by a `FusionModel`."""

from refgrad.cost.predict import fusion
from refgrad.cost.predict.fusion import UPDATE, FusionModel
from refgrad.cost.predict.growing import Grower
from refgrad.cost.predict.links import Links, Region
from refgrad.cost.predict.recomputing import Recomputing
from refgrad.cost.predict.steps import Schedule, TimedStep, Value


def regions(schedule: Schedule, model: FusionModel, kernels: tuple[str, ...] = ()) -> list[Region]:
    """Return the regions of a program in an order in which they can run; loops hold their own programs.

    `kernels` are scopes that one hand-written kernel computes: every run of consecutive steps below one is a region.
    """
    links = Links(schedule, model)
    formed = Recomputing(links, model).run() if model.recompute else Grower(links, model, kernels).run()
    return _finished(formed, links, model)


def _finished(formed: list[Region], links: Links, model: FusionModel) -> list[Region]:
    """Fill in what each region reads from outside, and writes for others or as a result."""
    inside = [set(map(id, region.steps)) for region in formed]
    for region, own in zip(formed, inside, strict=True):
        if region.is_copy:
            region.reads = _read(region, links) or region.reads
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


def _written(step: TimedStep, value: Value) -> int:
    return min(value.bytes, fusion.updated(step)) if fusion.kind_of(step) == UPDATE else value.bytes
