"""The fusion model: which equations are computed in one pass over memory. It is data, one `FusionModel` a compiler.

A primitive has a kind, by its family in the table of costs. What a kind allows:

    alias      no work and no bytes: the result is its operand under another shape or name
    map        element by element, or data movement: may be computed inside the region that reads it
    reduce     may compute what it reads inside its own region, as far as the model says
    product    a region of its own; with an epilogue, what maps its result belongs to the region
    update     writes a part of its operand in place
    library, collective, loop   a region of its own

A region reads each array that comes from outside once, of an array that it slices or gathers from only those elements,
and writes what is read outside it. Two ways of forming regions:

    recompute  (XLA:CPU) Reductions and products form clusters with the maps around them whose primitives the kernels
               know, as long as the cluster has one result. Every other map is computed again in each region of maps
               that reads it, unless it is transcendental and several regions read it: then it is stored.
    grow       (XLA:GPU, XLA:TPU, hand-written kernels) Every equation belongs to one region, which may have several
               results. A reduction over trailing dimensions and its readers share the rows of a region.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from refgrad.cost.predict.steps import TimedStep
from refgrad.cost.primitives import FAMILIES, movement
from refgrad.cost.primitives.rule import names
from refgrad.jaxpr.avals import shape_of

ALIAS, MAP, REDUCE, PRODUCT, UPDATE = "alias", "map", "reduce", "product", "update"
LIBRARY, COLLECTIVE, LOOP = "library", "collective", "loop"

_BY_FAMILY = {
    "elementwise": MAP,
    "special": MAP,
    "reductions": REDUCE,
    "windows": LIBRARY,
    "dots": PRODUCT,
    "movement": MAP,
    "indexing": MAP,
    "random": MAP,
    "linalg": LIBRARY,
    "cudnn": LIBRARY,
    "collectives": COLLECTIVE,
}
_BY_NAME = {
    **{name: ALIAS for name, rule in movement.RULES.items() if rule is movement.relabel},
    "squeeze": ALIAS,
    "expand_dims": ALIAS,
    "dynamic_update_slice": UPDATE,
    **dict.fromkeys(names("scatter scatter-add scatter_add scatter_mul scatter_min scatter_max scatter_sub"), UPDATE),
    **dict.fromkeys(names("sort top_k cumsum cumprod cummax cummin cumlogsumexp argmax argmin"), LIBRARY),
    "axis_index": MAP,
}
KINDS: Mapping[str, str] = {
    **{name: _BY_FAMILY[family] for family, rules in FAMILIES.items() for name in rules},
    **_BY_NAME,
}
"""Primitive's name → kind; a primitive that is not here is a library's."""

PARTIAL = frozenset(names("slice dynamic_slice gather"))
"""Maps that read of their first operand no more than they return."""


class FusionModel(NamedTuple):
    """A compiler's way, or a style of kernels, of forming fused regions."""

    name: str
    recompute: bool
    """True where every reader computes a map again; False where regions grow and each equation is in one."""
    clustered: frozenset[str] = frozenset()
    """For recomputed maps: primitives that share a kernel with a reduction or a product."""
    many_rows: int = 0
    """For recomputed maps: rows from which a cluster may go on from a sum, and read a map of its own twice."""
    copies: bool = False
    """True where an operand or a result of a product that does not lie as its kernel has it is copied."""
    strided: bool = True
    """True where kernels read operands in any order, so that a transposition moves nothing."""
    epilogue: bool = True
    """For regions that grow: True where a product's region takes the maps of its result."""


XLA_CPU = FusionModel(
    "XLA:CPU",
    recompute=True,
    many_rows=4096,
    copies=True,
    strided=False,
    clustered=frozenset(
        names("add add_any sub mul div neg max min exp square integer_pow abs convert_element_type broadcast_in_dim")
    ),
)
ROWS = FusionModel("rows", recompute=False)


def kind_of(step: TimedStep) -> str:
    """Return the kind of a step."""
    if step.bodies:
        return LOOP
    if _relabels(step):
        return ALIAS
    return KINDS.get(step.primitive, LIBRARY)


def _relabels(step: TimedStep) -> bool:
    """Return True for a broadcast or transposition that moves no element."""
    if step.primitive not in ("broadcast_in_dim", "transpose", "squeeze", "copy", "convert_element_type"):
        return False
    before: Any = step.eqn.invars[0].aval
    after: Any = step.eqn.outvars[0].aval
    if before.dtype != after.dtype or _elements(before.shape) != _elements(after.shape):
        return False
    kept = [i for i, d in enumerate(before.shape) if d > 1]
    return step.primitive != "transpose" or [i for i in step.eqn.params["permutation"] if i in kept] == kept


def has_number(step: TimedStep) -> bool:
    """Return True for a map with a number of the program's text among its operands; the guard max(x, −∞) is none."""
    return step.primitive != "max" and any(value is None for value in step.reads)


def spreads_rows(step: TimedStep) -> bool:
    """Return True where an operand is repeated along a leading dimension, as a bias is over rows."""
    out = shape_of(step.eqn.outvars[0])
    shapes = [shape_of(v) for v in step.eqn.invars]
    if step.primitive == "broadcast_in_dim":
        kept = step.eqn.params["broadcast_dimensions"]
        shapes = [tuple(shapes[0][kept.index(i)] if i in kept else 1 for i in range(len(out)))]
    return any(_spreads(shape, out) for shape in shapes if len(shape) == len(out))


def _spreads(shape: tuple[int, ...], out: tuple[int, ...]) -> bool:
    repeated = [i for i, (d, n) in enumerate(zip(shape, out, strict=True)) if d == 1 < n]
    return bool(repeated) and any(d > 1 for d in shape[repeated[0] :])


def is_expensive(step: TimedStep) -> bool:
    """Return True for what no compiler computes twice: a transcendental function of more than one element."""
    return step.cost.transcendental > 0


def is_one_array(step: TimedStep) -> bool:
    """Return True for a map that reads at most one array as large as its result: reading that costs no more."""
    made = sum(v.bytes for v in step.makes)
    return sum(bytes_read(step, i) >= made for i in range(len(step.reads))) <= 1


def copied(step: TimedStep, turned: bool) -> dict[int, bool]:
    """Return the operands of a product that do not lie as its kernel reads them: True where columns become rows.

    Batch dimensions come first. A matrix behind them is read in either order, but more dimensions only in that of the
    kernel: contracted ones last on the left, and first on the right. Where the result is turned, the sides are swapped.
    """
    if step.primitive != "dot_general":
        return {}
    found = {}
    for i, (contracted, batched) in enumerate(zip(*step.eqn.params["dimension_numbers"], strict=True)):
        rank = len(shape_of(step.eqn.invars[i]))
        free = [d for d in range(rank) if d not in (*batched, *contracted)]
        order = [*batched, *free, *contracted] if i == turned else [*batched, *contracted, *free]
        if list(batched) != list(range(len(batched))) or (rank - len(batched) > 2 and order != list(range(rank))):
            found[i] = order[-1] != rank - 1
    return found


def keeps_batch(product: TimedStep, turned: TimedStep) -> bool:
    """Return True where a transposition of a product's result leaves its batch dimensions first."""
    if product.primitive != "dot_general":
        return True
    _, (batched, _) = product.eqn.params["dimension_numbers"]
    return list(turned.eqn.params["permutation"][: len(batched)]) == list(range(len(batched)))


def turns(step: TimedStep) -> bool:
    """Return True for a transposition that makes columns to rows: it reads one element of a row at a time."""
    order = step.eqn.params["permutation"] if step.primitive == "transpose" else (0,)
    return order[-1] != len(order) - 1


def is_constant(step: TimedStep) -> bool:
    """Return True for a map of literals alone, such as an iota: it is made where it is read."""
    return kind_of(step) == MAP and all(v is None for v in step.reads)


def domain(step: TimedStep) -> tuple[int, ...]:
    """Return the shape over which a step runs: the largest of its operands and results."""
    return max((shape_of(v) for v in (*step.eqn.invars, *step.eqn.outvars) if hasattr(v.aval, "shape")), key=_elements)


def _elements(shape: tuple[int, ...]) -> int:
    n = 1
    for d in shape:
        n *= d
    return n


def reduces_rows(step: TimedStep) -> bool:
    """Return True for a reduction over trailing dimensions, which a region of rows can go on from."""
    axes = step.eqn.params.get("axes", ())
    rank = len(shape_of(step.eqn.invars[0]))
    return bool(axes) and sorted(axes) == list(range(rank - len(axes), rank))


def bytes_read(step: TimedStep, i: int) -> int:
    """Return the bytes that a step reads of its i-th operand."""
    value = step.reads[i]
    if value is None:
        return 0
    if step.primitive in PARTIAL and i == 0:
        return min(value.bytes, sum(v.bytes for v in step.makes))
    if kind_of(step) == UPDATE and i == 0:
        return min(value.bytes, updated(step))
    return value.bytes


def updated(step: TimedStep) -> int:
    """Return the bytes that an update writes, those of its updates."""
    at = 1 if step.primitive == "dynamic_update_slice" else (len(step.eqn.invars) + 1) // 2
    return sum(value.bytes for value in step.reads[at : at + 1] if value is not None)
