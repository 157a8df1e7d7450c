"""Which equations the lowering has folded away: those that may be (`constants`) and that the HLO does not hold.

JAX's lowering folds them before XLA sees the program, so they are in the jaxpr's count and not in XLA's.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jax.extend.core import JaxprEqn

from refgrad.cost.equations import Equation
from refgrad.cost.hlo import Row
from refgrad.cost.primitives import TABLE, elementwise
from refgrad.cost.primitives.rule import Work

# primitives that are one HLO instruction an element, by its opcode
OPCODES = {
    "abs": "abs",
    "add": "add",
    "add_any": "add",
    "and": "and",
    "convert_element_type": "convert",
    "cos": "cosine",
    "div": "divide",
    "eq": "compare",
    "exp": "exponential",
    "expm1": "exponential-minus-one",
    "ge": "compare",
    "gt": "compare",
    "integer_pow": "multiply",
    "le": "compare",
    "log": "log",
    "log1p": "log-plus-one",
    "lt": "compare",
    "max": "maximum",
    "min": "minimum",
    "mul": "multiply",
    "ne": "compare",
    "neg": "negate",
    "not": "not",
    "or": "or",
    "pow": "power",
    "rsqrt": "rsqrt",
    "select_n": "select",
    "sign": "sign",
    "sin": "sine",
    "sqrt": "sqrt",
    "square": "multiply",
    "sub": "subtract",
    "tanh": "tanh",
    "xor": "xor",
}
_TYPES = {"bool": "pred", "bfloat16": "bf16", "float": "f", "int": "s", "uint": "u", "complex": "c"}


def shape_key(dtype: Any, dims: Iterable[int]) -> str:
    """`f32[8,16]`: a shape as HLO writes it."""
    name = np.dtype(dtype).name if not hasattr(dtype, "name") else dtype.name
    short = _TYPES.get(name)
    if short is None:
        letters = name.rstrip("0123456789")
        short = _TYPES.get(letters, letters) + name[len(letters) :]
    return f"{short}[{','.join(map(str, dims))}]"


class Folded(NamedTuple):
    """Equations of one kind that are gone: what they were and why, and what they would have cost."""

    name: str
    flops: int
    transcendentals: int


def folded(expected: list[Equation], rows: list[Row]) -> Iterator[Folded]:
    """The equations that are missing among the HLO's `rows` and that may be folded.

    Of a kind (primitive and shape) that is missing more often than it may be folded, only the foldable ones are named:
    the rest stays unexplained.
    """
    rows = [row for row in rows if row.taken]
    present: Counter[tuple[str, str]] = Counter()
    for row in rows:
        if OPCODES.get(row.primitive) == row.instruction.opcode:
            shape = row.instruction.shape
            present[row.primitive, f"{shape.dtype}[{','.join(map(str, shape.dims))}]"] += row.times
    runs: Counter[tuple[str, str]] = Counter()
    candidates: dict[tuple[str, str], list[Equation]] = {}
    for equation in filter(lambda equation: _is_one_instruction(equation.eqn), expected):
        key = equation.eqn.primitive.name, _shape(equation.eqn)
        runs[key] += equation.times
        if equation.reason:
            candidates.setdefault(key, []).append(equation)
    for key, some in candidates.items():
        missing = runs[key] - present[key]
        for equation in some:
            gone = min(missing, equation.times)
            if gone > 0:
                missing -= gone
                yield _gone(equation, gone)
    yield from _constants(expected, {row.primitive for row in rows})


def _constants(expected: list[Equation], primitives: set[str]) -> Iterator[Folded]:
    """Constant element-wise equations of several instructions each, of which the HLO holds none."""
    for equation in expected:
        name = equation.eqn.primitive.name
        several = name in elementwise.RULES and not _is_one_instruction(equation.eqn)
        if several and equation.reason == "constant" and name not in primitives:
            yield _gone(equation, equation.times)


def _gone(equation: Equation, runs: int) -> Folded:
    eqn = equation.eqn
    work = TABLE[eqn.primitive.name](eqn)
    name = f"folded: {eqn.primitive.name} {_shape(eqn)}: {equation.reason}"
    if not isinstance(work, Work):
        return Folded(name, 0, 0)
    return Folded(name, -runs * (work.matmul + work.elementwise), -runs * work.transcendental)


def _shape(eqn: JaxprEqn) -> str:
    aval: Any = eqn.outvars[0].aval
    return shape_key(aval.dtype, aval.shape)


def _is_one_instruction(eqn: JaxprEqn) -> bool:
    """Whether it lowers to one instruction; a conversion to its own dtype lowers to none."""
    if eqn.primitive.name == "convert_element_type":
        before, after = (x.aval for x in (eqn.invars[0], eqn.outvars[0]))
        return getattr(before, "dtype", None) != getattr(after, "dtype", None)
    if eqn.primitive.name == "integer_pow":
        return eqn.params["y"] == 2
    return eqn.primitive.name in OPCODES
