"""Costs of one HLO instruction by XLA's own convention: one row of data per opcode.

The convention (XLA's `HloCostAnalysis`, found by experiment and by reading): a product of matrices is 2·|out|·k, an
element-wise operation one FLOP an element of its output, a transcendental one is counted apart, data movement is
free, and an operation with a computation of its own (reduce, scatter, …) is that computation's cost times the number
of its applications. A loop's body and condition count once, a conditional as its costliest branch, a custom call −1,
unless it only reserves memory, as XLA:TPU's do.

Here a cost is *data* (`HloWork`): own integers, and calls of computations with a factor. `walk` adds it up twice: in
integers, and in float32 in XLA's order.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

from refgrad.cost.hlo.parse import Computation, Instruction
from refgrad.cost.hlo.windows import convolution_taps, reduce_window_applications, window

FREE_CALLS = ("AllocateBuffer",)  # custom calls that XLA counts as 0


class UnknownInstruction(ValueError):
    """An HLO instruction whose cost is not known; `opcode`, `name` and `computation` say which."""

    def __init__(self, instruction: Instruction, computation: Computation):
        self.opcode, self.name, self.computation = instruction.opcode, instruction.name, computation.name
        super().__init__(
            f"no cost is known for the HLO opcode {self.opcode!r} (instruction {self.name!r} of computation "
            f"{self.computation!r}): add a row to refgrad.cost.hlo.rules.RULES, or list it with unknown='collect'"
        )


@dataclass(frozen=True, slots=True)
class HloWork:
    """Cost of one instruction: its own FLOPs and transcendentals, plus factor × the cost of each called computation.

    Attributes:
      flops: its own FLOPs.
      transcendentals: its own transcendentals.
      calls: (factor, name) of each computation that it calls.
      kind: "inline" (call, fusion: the inner instructions stand for themselves), "applied" (reduce, scatter: the
        instruction stands for all applications), "loop" (body, condition), "branches" (the costliest of them).

    Example:
      >>> from refgrad.cost.hlo import HloWork
      >>> HloWork(flops=8).kind
      'applied'
    """

    flops: int = 0
    transcendentals: int = 0
    calls: tuple[tuple[int, str], ...] = ()
    kind: str = "applied"


Rule = Callable[[Instruction, Computation], HloWork]

_FREE = """
    parameter constant iota get-tuple-element reverse slice dynamic-slice dynamic-update-slice tuple concatenate copy
    domain infeed outfeed bitcast broadcast pad async-update async-done copy-start copy-done send send-done recv
    recv-done reshape dynamic-reshape batch-norm-training batch-norm-inference batch-norm-grad transpose after-all
    add-dependency opt-barrier all-gather all-gather-start all-gather-done reduce-scatter all-reduce-done all-to-all
    ragged-all-to-all collective-broadcast collective-permute collective-permute-start collective-permute-done
    partition-id replica-id rng-get-and-update-state topk gather get-dimension-size set-dimension-size
"""

_ELEMENTWISE = """
    abs add and bitcast-convert ceil clamp compare complex convert count-leading-zeros divide floor imag is-finite
    maximum minimum mulhi multiply negate not or popcnt real reduce-precision remainder round-nearest-afz
    round-nearest-even select shift-left shift-right-arithmetic shift-right-logical sign stochastic-convert subtract
    xor
"""

_TRANSCENDENTAL = """
    acos acosh asin asinh atan2 atanh cbrt cosh cosine erf exponential exponential-minus-one log log-plus-one logistic
    power rng rsqrt sine sinh sqrt tan tanh
"""


def _first(instruction: Instruction) -> int:
    """Elements of the output, of its first array where it is a tuple."""
    return next(instruction.shape.leaves()).elements


def _dot(i: Instruction, c: Computation) -> HloWork:
    lhs = c.operand(i, 0).shape
    return HloWork(flops=2 * i.shape.elements * prod(lhs.dims[d] for d in i.numbers("lhs_contracting_dims")))


def _ragged_dot(i: Instruction, c: Computation) -> HloWork:
    # XLA drops the leading output dimensions, as many as there are group dimensions.
    lhs, groups = c.operand(i, 0).shape, len(i.numbers("rhs_group_dims"))
    contracted = prod(lhs.dims[d] for d in i.numbers("lhs_contracting_dims"))
    return HloWork(flops=2 * prod(i.shape.dims[groups:]) * contracted)


def _convolution(i: Instruction, c: Computation) -> HloWork:
    return HloWork(flops=2 * convolution_taps(i, c.operand(i, 0).shape, c.operand(i, 1).shape))


def _fft(i: Instruction, c: Computation) -> HloWork:
    logs = prod(n.bit_length() - 1 for n in i.numbers("fft_length"))
    return HloWork(flops=8 * logs * c.operand(i, 0).shape.elements)


def _triangular_solve(i: Instruction, c: Computation) -> HloWork:
    return HloWork(flops=2 * c.operand(i, 0).shape.dims[-1] * c.operand(i, 1).shape.elements)


def _cholesky(i: Instruction, c: Computation) -> HloWork:
    matrix = c.operand(i, 0).shape
    return HloWork(flops=matrix.dims[-1] * matrix.elements // 3)


def _sort(i: Instruction, c: Computation) -> HloWork:
    # The comparator is not looked at: n·⌈log2 n⌉ over all elements of the first operand.
    n = c.operand(i, 0).shape.elements
    return HloWork(flops=n * (n - 1).bit_length() if n else 0)


def _all_reduce(i: Instruction, c: Computation) -> HloWork:
    return HloWork(flops=sum(leaf.elements for leaf in i.shape.leaves()))


def _reduce(i: Instruction, c: Computation) -> HloWork:
    return _applied(i, c.operand(i, 0).shape.elements - _first(i))


def _scatter(i: Instruction, c: Computation) -> HloWork:
    updates = c.operand(i, (len(i.operands) + 1) // 2)  # k operands, the indices, k updates
    return _applied(i, updates.shape.elements)


def _select_and_scatter(i: Instruction, c: Computation) -> HloWork:
    source = c.operand(i, 1).shape.elements
    selects = source * (prod(d.size for d in window(i)) - 1)
    (select,), (scatter,) = i.computations("select"), i.computations("scatter")
    return HloWork(calls=((selects, select), (source, scatter)))


def _applied(i: Instruction, times: int) -> HloWork:
    return HloWork(calls=tuple((times, body) for body in i.computations("to_apply")))


def _inline(*keys: str) -> Rule:
    def rule(i: Instruction, c: Computation) -> HloWork:
        return HloWork(calls=tuple((1, name) for key in keys for name in i.computations(key)), kind="inline")

    return rule


def _while(i: Instruction, c: Computation) -> HloWork:
    (body,), (condition,) = i.computations("body"), i.computations("condition")
    return HloWork(calls=((1, body), (1, condition)), kind="loop")


def _conditional(i: Instruction, c: Computation) -> HloWork:
    keys = ("branch_computations", "true_computation", "false_computation")
    return HloWork(calls=tuple((1, name) for key in keys for name in i.computations(key)), kind="branches")


RULES: dict[str, Rule] = {
    **dict.fromkeys(_FREE.split(), lambda i, c: HloWork()),
    **dict.fromkeys(_ELEMENTWISE.split(), lambda i, c: HloWork(flops=i.shape.elements)),
    **dict.fromkeys(_TRANSCENDENTAL.split(), lambda i, c: HloWork(transcendentals=i.shape.elements)),
    "all-reduce": _all_reduce,
    "all-reduce-start": _all_reduce,  # its shape is the result's, not a tuple of operands and results
    "async-start": _inline("calls"),
    "call": _inline("to_apply"),
    "cholesky": _cholesky,
    "conditional": _conditional,
    "convolution": _convolution,
    "custom-call": lambda i, c: HloWork(flops=0 if i.attribute("custom_call_target") in FREE_CALLS else -1),
    "dot": _dot,
    "fft": _fft,
    "fusion": _inline("calls"),
    "map": lambda i, c: _applied(i, _first(i)),
    "ragged-dot": _ragged_dot,
    "reduce": _reduce,
    "reduce-window": lambda i, c: _applied(i, reduce_window_applications(i, _first(i))),
    "rng-bit-generator": lambda i, c: HloWork(transcendentals=sum(leaf.elements for leaf in i.shape.leaves())),
    "scatter": _scatter,
    "scaled-dot": _dot,
    "select-and-scatter": _select_and_scatter,
    "sort": _sort,
    "triangular-solve": _triangular_solve,
    "while": _while,
}


def work(instruction: Instruction, computation: Computation) -> HloWork:
    """Cost of one instruction as data. Raises UnknownInstruction for an opcode that has no row here."""
    opcode = instruction.opcode
    if opcode in RULES:
        return RULES[opcode](instruction, computation)
    # An asynchronous operation is printed as OPCODE-start, -update, -done; the start stands for all of it.
    stem, _, phase = opcode.rpartition("-")
    if stem in RULES and phase in ("update", "done"):
        return HloWork()
    if stem in RULES and phase == "start" and instruction.shape.parts is not None:
        return RULES[stem](replace(instruction, opcode=stem, shape=instruction.shape.parts[1]), computation)
    raise UnknownInstruction(instruction, computation)
