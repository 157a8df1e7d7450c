"""Add up an HLO module: exactly in integers, and in float32 in the very order in which XLA adds.

XLA keeps its sums in float32, so above 2²⁴ its answer depends on the order of the additions. It visits a computation
depth first from its root (first operand first, then control predecessors), after the instructions that nobody uses;
a called computation is summed on its own and enters its caller as one number. Replaying that gives XLA's figure bit
for bit, which certifies the integers beside it.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np

from refgrad.cost.hlo.parse import Computation, Instruction, Module, parse
from refgrad.cost.hlo.rules import HloWork, UnknownInstruction, work
from refgrad.cost.hlo.trips import Context, trip_count
from refgrad.cost.hlo.types import Conditional, ExactCounts, HloCost, HloRow, Loop

Float32 = tuple[np.float32, np.float32]


def cost(text: str, unknown: Literal["raise", "collect"] = "raise") -> HloCost:
    """Return the cost of a module given as HLO text, lowered or compiled.

    Args:
      text: the module, such as `jax.jit(f).lower(*args).as_text(dialect="hlo", debug_info=True)`.
      unknown: "raise", or "collect" to list the opcodes without a rule in the result and count them as 0.

    Returns:
      An `HloCost`.

    Raises:
      UnknownInstruction: for an opcode without a rule.
      HloSyntaxError: for text that is not HLO.

    Example:
      >>> import jax
      >>> from refgrad.cost import hlo
      >>> x = jax.ShapeDtypeStruct((2, 2), "float32")
      >>> hlo.cost(jax.jit(jax.numpy.matmul).lower(x, x).as_text(dialect="hlo")).flops
      16
    """
    return _cost(_Walk(parse(text), unknown))


def with_runs(walked: HloCost, branches: Mapping[int, tuple[int, ...]], loops: Mapping[int, int]) -> HloCost:
    """Return the same walk with rows of the branches that are taken instead of the costliest, and more trips known.

    `branches` gives for a conditional, by its place in `walked.conditionals`, how often each branch is taken in all;
    `loops` for a loop, by its place in `walked.loops`, how often its body runs in all. The totals stay XLA's.
    """
    return _cost(_Walk(walked.module, "collect", branches, loops))


def _cost(walk: "_Walk") -> HloCost:
    exact, replayed = walk.total(walk.module.entry)
    rows = tuple(walk.rows(walk.module.entry, "", 1, Context(walk.module)))
    return HloCost(
        walk.module,
        exact.flops,
        exact.transcendentals,
        (float(replayed[0]), float(replayed[1])),
        tuple(walk.loops),
        tuple(walk.conditionals),
        rows,
        tuple(walk.unknown),
    )


def visit_order(computation: Computation) -> list[str]:
    """The order in which XLA adds: the trees of instructions without users first, then the root's; post-order."""
    instructions = computation.instructions
    predecessors = {name: _predecessors(i) for name, i in instructions.items()}
    used = {name for names in predecessors.values() for name in names}
    order: list[str] = []
    state: dict[str, bool] = {}  # False: on the way, True: done
    for start in [*(name for name in instructions if name not in used), computation.root]:
        stack = [start]
        while stack:
            name = stack[-1]
            if name not in state:
                state[name] = False
                stack.extend(p for p in reversed(predecessors[name]) if p not in state)
                continue
            stack.pop()
            if not state[name]:
                state[name] = True
                order.append(name)
    return order


def _predecessors(instruction: Instruction) -> tuple[str, ...]:
    if "control-predecessors" in instruction.attributes:
        return instruction.operands + instruction.computations("control-predecessors")
    return instruction.operands


class _Walk:
    """One pass over a module; sums of a computation are kept, because they do not depend on who calls it."""

    def __init__(
        self,
        module: Module,
        unknown: Literal["raise", "collect"],
        branches: Mapping[int, tuple[int, ...]] | None = None,
        loops: Mapping[int, int] | None = None,
    ):
        self.module, self.collect = module, unknown == "collect"
        self._branch_runs, self._loop_runs = branches or {}, loops or {}
        self.unknown: list[str] = []
        self.loops: list[Loop] = []
        self.conditionals: list[Conditional] = []
        self._totals: dict[str, tuple[ExactCounts, Float32]] = {}
        self._works: dict[tuple[str, str], HloWork] = {}

    def work(self, instruction: Instruction, computation: Computation) -> HloWork:
        key = computation.name, instruction.name
        if key not in self._works:
            try:
                self._works[key] = self._fusion(instruction) or work(instruction, computation)
            except UnknownInstruction as error:
                if not self.collect:
                    raise
                self.unknown.append(f"{error.opcode} ({instruction.name})")
                self._works[key] = HloWork()
        return self._works[key]

    def _fusion(self, instruction: Instruction) -> HloWork | None:
        """XLA takes a custom fusion that holds a gather or a scatter for that one instruction."""
        if instruction.opcode != "fusion" or instruction.attribute("kind") != "kCustom":
            return None
        inner = self.module.computations[instruction.computations("calls")[0]]
        for i in inner.instructions.values():
            if i.opcode in ("gather", "scatter"):
                return work(i, inner)
        return None

    def total(self, name: str) -> tuple[ExactCounts, Float32]:
        """(exact, replayed) sums of one computation."""
        if name not in self._totals:
            computation = self.module.computations[name]
            exact, replayed = ExactCounts(0, 0), (np.float32(0), np.float32(0))
            for instruction_name in visit_order(computation):
                w = self.work(computation.instructions[instruction_name], computation)
                more, more32 = self.own(w)
                exact = ExactCounts(exact.flops + more.flops, exact.transcendentals + more.transcendentals)
                replayed = np.float32(replayed[0] + more32[0]), np.float32(replayed[1] + more32[1])
            self._totals[name] = exact, replayed
        return self._totals[name]

    def own(self, w: HloWork) -> tuple[ExactCounts, Float32]:
        """(exact, replayed) cost of one instruction with everything it calls."""
        if not w.calls:
            return ExactCounts(w.flops, w.transcendentals), (np.float32(w.flops), np.float32(w.transcendentals))
        parts = [(times, *self.total(name)) for times, name in w.calls]
        merge = _costliest if w.kind == "branches" else sum
        exact = [merge([times * e[k] for times, e, _ in parts]) for k in (0, 1)]
        # A factor is rounded to float32 before it multiplies, as XLA does.
        replay = [np.float32(merge([np.float32(times) * r[k] for times, _, r in parts])) for k in (0, 1)]
        return ExactCounts(*exact), (replay[0], replay[1])

    def rows(self, name: str, prefix: str, times: int, context: Context) -> Iterator[HloRow]:
        """The instructions that run, calls opened up, reductions and the like as one row each."""
        computation = self.module.computations[name]
        for instruction in computation.instructions.values():
            w = self.work(instruction, computation)
            scope = _join(prefix, instruction.op_name)
            if w.kind == "applied":
                exact, _ = self.own(w)
                yield HloRow(instruction, name, scope, exact.flops, exact.transcendentals, times)
            elif w.kind == "loop":
                yield from self._loop(instruction, scope, prefix, times, context.at(name))
            elif w.kind == "branches":
                yield from self._branches(w, scope, prefix, times, context.at(name))
            else:
                for _, callee in w.calls:
                    yield from self.rows(callee, scope, times, context.at(name).into(instruction))

    def _loop(
        self, instruction: Instruction, scope: str, prefix: str, times: int, context: Context
    ) -> Iterator[HloRow]:
        trips = trip_count(instruction, context)
        runs = self._loop_runs.get(len(self.loops), None if trips is None else times * trips)
        self.loops.append(Loop(instruction, scope, trips))
        (body,), (condition,) = instruction.computations("body"), instruction.computations("condition")
        inner = context.into(instruction)
        yield from self.rows(body, prefix, times if runs is None else runs, inner)
        yield from self.rows(condition, prefix, times if runs is None else runs + times, inner)

    def _branches(self, w: HloWork, scope: str, prefix: str, times: int, context: Context) -> Iterator[HloRow]:
        """Each property comes from its own costliest branch, as in XLA; the rows of the others count 0.

        Where it is given how often the branches are taken, they count so often.
        """
        totals = [self.total(name)[0] for _, name in w.calls]
        runs = self._branch_runs.get(len(self.conditionals), ())
        self.conditionals.append(Conditional(scope, tuple(totals), times, runs))
        costliest = [{max(range(len(totals)), key=lambda b, k=k: totals[b][k])} for k in (0, 1)]
        taken = {totals.index(max(totals, key=sum))}
        if runs:
            taken = {branch for branch, n in enumerate(runs) if n}
            costliest = [taken, taken]
        for branch, (_, name) in enumerate(w.calls):
            before = len(self.conditionals)
            n = runs[branch] if runs and branch in taken else times
            for row in self.rows(name, prefix, n, context.into(None)):
                yield row._replace(
                    flops=row.flops if branch in costliest[0] else 0,
                    transcendentals=row.transcendentals if branch in costliest[1] else 0,
                    taken=row.taken and branch in taken,
                )
            if branch not in taken:
                self.conditionals[before:] = [c._replace(times=0) for c in self.conditionals[before:]]


def _costliest(costs: list):
    """XLA's maximum over branches: a branch that costs nothing does not take part."""
    return max([costs[0], *(c for c in costs[1:] if c != 0)])


def _join(prefix: str, op_name: str) -> str:
    """Full scope: inside a called computation a name may be relative to the call's, or already start at the module's
    own `jit(…)`."""
    if not prefix or op_name.split("/", 1)[0] == prefix.split("/", 1)[0]:
        return op_name or prefix
    return f"{prefix}/{op_name}" if op_name else prefix
