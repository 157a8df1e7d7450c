"""The bytes that the collectives of a compiled program move: which kind, among which devices, how often.

Read off the text of the compiled module, where the partitioner has done its work. Each collective has a payload, the
bytes of the array that it is about: what each device puts in for an all-reduce, a reduce-scatter, an all-to-all and a
permutation, what each gets for an all-gather. Around a ring of n devices each sends of a payload

    all-reduce 2 (n − 1)/n      all-gather, reduce-scatter, all-to-all (n − 1)/n      collective-permute 1

XLA merges collectives of one kind and group into one with several operands, and names a group by its devices: the
groups are given back as the axes of the mesh that they run along. Loops count with their trips. XLA:TPU does a small
reduce-scatter as an all-reduce of which each device keeps its own part: it moves twice the bytes, and stands for what
the program asks.
"""

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from refgrad._text import Table
from refgrad.cost import hlo
from refgrad.cost.hlo.parse import Computation, Instruction, Module, Shape
from refgrad.cost.hlo.types import HloRow

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_OTHERS = ("collective-broadcast", "ragged-all-to-all", "send", "recv")
_GIVEN = r"(?:replica_groups|source_target_pairs)="
_LISTS = re.compile(_GIVEN + r"(\{(?:\{[\d,]*\},?)*\})")
_COUNT = re.compile(_GIVEN + r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(_GIVEN + r"mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{([^}]*)\}")
_CHAIN = re.compile(r'channel_id=(\d+).*\bchain_id="(\d+)"')
_BITS = re.compile(r"[a-z]+(\d+)")
_CALLED = ("to_apply", "calls", "body", "condition", "branch_computations", "true_computation", "false_computation")


class Collective(NamedTuple):
    """One collective instruction: payload in bytes of one execution, and how often it runs.

    `axes` are the mesh axes that its groups run along, in the mesh's order; `devices` is the size of a group.
    """

    kind: str
    axes: tuple[str, ...]
    devices: int
    payload: int
    times: int
    scope: str
    stands_for: str = ""
    """The kind that the program asks for, where XLA does it as another; "" where it does that itself."""


def sent(kind: str, devices: int, payload: int) -> Fraction:
    """Bytes that each device sends for a payload, around a ring of so many devices."""
    if kind == "collective-permute":
        return Fraction(payload)
    return Fraction(payload * (devices - 1) * (2 if kind == "all-reduce" else 1), devices)


def collectives(text: str, mesh: Mapping[str, int]) -> list[Collective]:
    """Every collective of a compiled module's text, on a mesh of {axis: size} whose devices are numbered in order.

    Raises ValueError where a group does not run along axes of the mesh, where a loop around a collective has no known
    number of trips, and for a collective that this reader does not know.
    """
    walked = hlo.cost(text, unknown="collect")
    unknown = _below(walked.module, [loop.instruction for loop in walked.loops if loop.trips is None])
    rows = list(_once_a_chain(walked.rows))
    return [found for row in rows for found in _read(walked.module, row, mesh, unknown)]


def _once_a_chain(rows: Iterable[HloRow]) -> Iterator[HloRow]:
    """Yield the rows, of a collective that XLA:TPU spreads over a chain of fusions only the first."""
    chains: set[tuple[str, ...]] = set()
    for row in rows:
        chain = _CHAIN.search(row.instruction.attributes)
        if chain is None or chain.groups() not in chains:
            yield row
        if chain is not None:
            chains.add(chain.groups())


def totals(found: Iterable[Collective]) -> dict[tuple[str, tuple[str, ...]], int]:
    """Payload by the kind that the program asks for, and axes, every execution counted."""
    sums: dict[tuple[str, tuple[str, ...]], int] = {}
    for one in found:
        key = one.stands_for or one.kind, one.axes
        sums[key] = sums.get(key, 0) + one.payload * one.times
    return sums


def _read(module: Module, row: HloRow, mesh: Mapping[str, int], unknown: set[str]) -> Iterator[Collective]:
    instruction = row.instruction
    kind = instruction.opcode.removesuffix("-start")
    if kind in _OTHERS:
        raise ValueError(f"{instruction.name} is a {instruction.opcode}, whose bytes this reader does not know")
    if kind not in KINDS or not row.taken:
        return
    if row.computation in unknown:
        raise ValueError(f"{instruction.name} runs in a loop of unknown trips: {row.scope}")
    operands = module.computations[row.computation].instructions
    payload = sum(_bytes(leaf) for name in instruction.operands for leaf in operands[name].shape.leaves())
    groups = _groups(instruction, math.prod(mesh.values()))
    if kind == "collective-permute":
        axes, devices = _spanned(groups, mesh), 2
    else:
        axes, devices = _axes(groups, mesh, instruction.name), len(groups[0])
    if kind == "all-gather":
        payload *= devices
    if devices > 1:
        scatters = kind == "all-reduce" and _is_scattered(module, row, devices)
        yield Collective(kind, axes, devices, payload, row.times, row.scope, "reduce-scatter" if scatters else "")


def _is_scattered(module: Module, row: HloRow, devices: int) -> bool:
    """Return True where of every result of an all-reduce each device keeps a slice, its share, and nothing else."""
    within = module.computations[row.computation]
    if row.instruction.name == within.root or row.instruction.opcode != "all-reduce":
        return False
    readers = _readers(within, row.instruction.name)
    if row.instruction.shape.parts is not None:
        readers = [slicing for part in readers for slicing in _readers(within, part.name)]
    shares = [leaf.elements // devices for leaf in row.instruction.shape.leaves()]
    kept = [reader.shape.elements for reader in readers if _slices(module, reader)]
    return len(kept) == len(readers) and sorted(kept) == sorted(shares)


def _readers(within: Computation, name: str) -> list[Instruction]:
    return [i for i in within.instructions.values() if name in i.operands]


def _slices(module: Module, instruction: Instruction) -> bool:
    """Return True for a dynamic slice, and for a fusion of one."""
    fused = (i for name in instruction.computations("calls") for i in module.computations[name].instructions.values())
    return any(i.opcode == "dynamic-slice" for i in (instruction, *fused))


def _bytes(shape: Shape) -> int:
    bits = _BITS.match(shape.dtype)
    return math.ceil(shape.elements * (int(bits.group(1)) if bits else 8) / 8)


def _groups(instruction: Instruction, devices: int) -> list[tuple[int, ...]]:
    """Groups of device numbers, in any of the forms that XLA writes.

    Lists, `{{0,1},{2,3}}`, where none at all is all devices; a count that is reshaped, transposed and cut into rows,
    `[2,2]<=[2,2]T(1,0)`; or some of the axes of a mesh whose devices are such a count, `mesh['a'=2,'b'=2] {'b'}`.
    """
    text = instruction.attributes
    if found := _LISTS.search(text):
        groups = [tuple(map(int, part.split(","))) for part in re.findall(r"\{([\d,]+)\}", found.group(1))]
        return groups or [tuple(range(devices))]
    if found := _COUNT.search(text):
        shape, counted, order = found.groups()
        return _rows(_counted(counted, order).reshape(_numbers(shape)))
    if found := _MESH.search(text):
        axes, counted, order, along = found.groups()
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)}
        ids = _counted(counted or str(math.prod(sizes.values())), order).reshape(tuple(sizes.values()))
        chosen = [list(sizes).index(name) for name in re.findall(r"'([^']+)'", along)]
        if re.sub(r"'[^']+'|,|\s", "", along):
            raise ValueError(f"{instruction.name}: groups along a part of an axis, {{{along}}}, are not read here")
        return _rows(_along(ids, chosen))
    raise ValueError(f"{instruction.name}: no groups of devices in {text[:200]!r}")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def _counted(shape: str, order: str | None) -> np.ndarray:
    """0, 1, 2 … in this shape, its dimensions then in this order."""
    ids = np.arange(math.prod(_numbers(shape))).reshape(_numbers(shape))
    return ids.transpose(_numbers(order)) if order else ids


def _along(ids: np.ndarray, dimensions: Sequence[int]) -> np.ndarray:
    """One row for each group that runs along these dimensions."""
    size = math.prod(ids.shape[n] for n in dimensions)
    return np.moveaxis(ids, dimensions, range(-len(dimensions), 0)).reshape(-1, size)


def _rows(ids: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(map(int, row)) for row in ids]


def _axes(groups: list[tuple[int, ...]], mesh: Mapping[str, int], name: str) -> tuple[str, ...]:
    """The axes along which exactly these groups run."""
    ids = np.arange(math.prod(mesh.values())).reshape(tuple(mesh.values()))
    want = {frozenset(group) for group in groups}
    for count in range(len(mesh) + 1):
        for chosen in itertools.combinations(range(len(mesh)), count):
            if set(map(frozenset, _rows(_along(ids, chosen)))) == want:
                return tuple(axis for n, axis in enumerate(mesh) if n in chosen)
    raise ValueError(f"{name}: the groups {groups} run along no axes of the mesh {dict(mesh)}")


def _spanned(pairs: list[tuple[int, ...]], mesh: Mapping[str, int]) -> tuple[str, ...]:
    """The axes along which a source and its target differ."""
    places = [np.unravel_index(pair, tuple(mesh.values())) for pair in pairs]
    return tuple(axis for n, axis in enumerate(mesh) if any(place[n][0] != place[n][1] for place in places))


def _below(module: Module, loops: Iterable[Instruction]) -> set[str]:
    """The computations that these loops run, at any depth."""
    reached: set[str] = set()
    rest = [name for loop in loops for key in ("body", "condition") for name in loop.computations(key)]
    while rest:
        name = rest.pop()
        if name not in reached:
            reached.add(name)
            inside = module.computations[name].instructions.values()
            rest += [callee for i in inside for key in _CALLED for callee in i.computations(key)]
    return reached


def table(found: Iterable[Collective]) -> Table:
    """Kind, axes, devices, how often, payload, bytes that each device sends, by instruction."""
    rows = [
        [
            f"{one.kind}, for a {one.stands_for}" if one.stands_for else one.kind,
            " × ".join(one.axes),
            str(one.devices),
            f"{one.times:,}",
            f"{one.payload * one.times:,}",
            f"{float(sent(one.kind, one.devices, one.payload * one.times)):,.0f}",
            one.scope,
        ]
        for one in found
    ]
    return Table(["collective", "along", "devices", "times", "payload", "sent", "where"], rows)
