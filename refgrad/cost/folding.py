"""Equations that the lowering has folded away: those that may be folded (`constants`) and are missing from the HLO.

JAX's lowering folds them before XLA sees the program, so they are in the jaxpr's count and not in XLA's.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jax.extend.core import JaxprEqn

from refgrad.cost.constants import EXPONENT
from refgrad.cost.equations import DEAD, Equation
from refgrad.cost.hlo import HloRow
from refgrad.cost.primitives import dots, elementwise, price, reductions, special
from refgrad.cost.primitives.rule import Work
from refgrad.jaxpr.avals import shape_of

# primitives that are one HLO instruction an element, by its opcode
OPCODES = {
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
# primitives that JAX itself expands, in some version or for some dtype: the instructions bear the names of others
_EXPANDED = {*special.RULES, "abs", "asin", "integer_pow", "logistic", "reciprocal"}
# primitives whose instructions all bear their name (a cumulative sum's do not)
_NAMED = {
    *dots.RULES,
    *elementwise.RULES,
    *(name for name in reductions.RULES if name.startswith("reduce_")),
} - _EXPANDED
_TYPES = {"bool": "pred", "bfloat16": "bf16", "float": "f", "int": "s", "uint": "u", "complex": "c"}


def shape_key(dtype: Any, dims: Iterable[int]) -> str:
    """`f32[8,16]`: a shape as HLO writes it."""
    name = np.dtype(dtype).name if not hasattr(dtype, "name") else dtype.name
    short = _TYPES.get(name)
    if short is None:
        letters = name.rstrip("0123456789")
        short = _TYPES.get(letters, letters) + name[len(letters) :]
    return _typed(short, dims)


def _typed(dtype: str, dims: Iterable[int]) -> str:
    return f"{dtype}[{','.join(map(str, dims))}]"


Kind = tuple[str, str, str]
"""A kind of instruction: the primitive that it is named for, its opcode, its shape."""


class Folded(NamedTuple):
    """Equations of one kind that are gone: what they were and why, and what they would have cost."""

    name: str
    flops: int
    transcendentals: int


def folded(expected: list[Equation], rows: list[HloRow]) -> Iterator[Folded]:
    """The equations that are missing among the HLO's `rows` and that may be folded.

    Of a kind (primitive and shape) that is missing more often than it may be folded, only the foldable ones are named:
    the rest stays unexplained.
    """
    rows = [row for row in rows if row.taken]
    missing: Counter[Kind] = Counter()
    for equation in expected:
        for kind, n in _instructions(equation.eqn).items():
            missing[kind] += n * equation.times
    for row in rows:
        shape = row.instruction.shape
        missing[row.primitive, row.instruction.opcode, _typed(shape.dtype, shape.dims)] -= row.times
    candidates = [equation for equation in expected if equation.reason]
    for equation in sorted(
        candidates, key=_is_single
    ):  # those of many instructions first, which hold the others' kinds
        kinds = _instructions(equation.eqn)
        gone = min((equation.times, *(missing[kind] // n for kind, n in kinds.items()))) if kinds else 0
        if gone > 0:
            missing.subtract({kind: n * gone for kind, n in kinds.items()})
            yield _gone(equation, gone)
    yield from _several(expected, rows)
    yield from _exponents(expected, rows)


def _several(expected: list[Equation], rows: list[HloRow]) -> Iterator[Folded]:
    """Equations of several instructions that are gone: as many as the HLO lacks of their primitive's whole work."""
    expected = [equation for equation in expected if equation.eqn.primitive.name in _NAMED]
    missing: Counter[str] = Counter()
    for equation in expected:
        missing[equation.eqn.primitive.name] += _work(_gone(equation, equation.times))
    for row in rows:
        missing[row.primitive] -= (row.flops + row.transcendentals) * row.times
    for equation in expected:
        name = equation.eqn.primitive.name
        if equation.reason in ("constant", DEAD) and not _is_one_instruction(equation.eqn):
            gone = _gone(equation, equation.times)
            if 0 < _work(gone) <= missing[name]:
                missing[name] -= _work(gone)
                yield gone


def _work(gone: Folded) -> int:
    return -gone.flops - gone.transcendentals


def _exponents(expected: list[Equation], rows: list[HloRow]) -> Iterator[Folded]:
    """Integer exponents that are constant, and so converted to the base's dtype before the program runs."""
    converted = (row for row in rows if (row.primitive, row.instruction.opcode) == ("pow", "convert"))
    present = sum(row.flops * row.times for row in converted)
    powers = [e for e in expected if e.eqn.primitive.name == "pow" and e.reason != "constant"]
    conversions = [-e.times * _gone(e, 1).flops for e in powers]
    foldable = sum(n for n, e in zip(conversions, powers, strict=True) if e.reason == EXPONENT)
    gone = min(sum(conversions) - present, foldable)
    if gone > 0:
        yield Folded(f"folded: conversion of a {EXPONENT}", -gone, 0)


def _gone(equation: Equation, runs: int) -> Folded:
    eqn = equation.eqn
    work = price(eqn)
    name = f"folded: {eqn.primitive.name} {_shape(eqn)}: {equation.reason}"
    if not isinstance(work, Work):
        return Folded(name, 0, 0)
    return Folded(name, -runs * (work.matmul + work.elementwise), -runs * work.transcendental)


def _instructions(eqn: JaxprEqn) -> dict[Kind, int]:
    """Return the number of instructions of each kind that an equation becomes; empty where that is unknown."""
    name = eqn.primitive.name
    if name in _EXPANDED:
        dims = shape_of(eqn.outvars[0])
        expanded = special.expansion(eqn).instructions
        return {(inner, opcode, _typed(dtype, dims)): n for (inner, opcode, dtype), n in expanded.items()}
    return {(name, OPCODES[name], _shape(eqn)): 1} if _is_one_instruction(eqn) else {}


def _is_single(equation: Equation) -> bool:
    return equation.eqn.primitive.name not in _EXPANDED


def _shape(eqn: JaxprEqn) -> str:
    aval: Any = eqn.outvars[0].aval
    return shape_key(aval.dtype, aval.shape)


def _is_one_instruction(eqn: JaxprEqn) -> bool:
    """Return True if it lowers to one instruction; a conversion to its own dtype lowers to none."""
    if eqn.primitive.name == "convert_element_type":
        before, after = (x.aval for x in (eqn.invars[0], eqn.outvars[0]))
        return getattr(before, "dtype", None) != getattr(after, "dtype", None)
    return eqn.primitive.name in OPCODES
