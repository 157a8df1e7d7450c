"""Which equations of a jaxpr the lowering may fold away: constants, x · 1, x ± 0, select by a constant.

JAX's lowering folds these before XLA sees the program, so they are in the jaxpr's count and not in XLA's. This file
only names candidates, by what the jaxpr says of their operands; whether one is really gone is read off the HLO.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from refgrad.cost.primitives import TABLE
from refgrad.cost.primitives.rule import Bodies, Body
from refgrad.cost.trips import while_trips

# primitives that are one HLO instruction an element, by its opcode
OPCODES = {
    "abs": "abs",
    "add": "add",
    "add_any": "add",
    "and": "and",
    "convert_element_type": "convert",
    "div": "divide",
    "eq": "compare",
    "exp": "exponential",
    "ge": "compare",
    "gt": "compare",
    "le": "compare",
    "log": "log",
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
    "sqrt": "sqrt",
    "sub": "subtract",
    "tanh": "tanh",
    "xor": "xor",
}
_HANDED_ON = ("broadcast_in_dim", "reshape", "squeeze", "transpose", "split", "slice", "convert_element_type", "copy")
_NEUTRAL = {"mul": 1, "add": 0, "add_any": 0, "and": True, "or": False, "xor": False}
_TYPES = {"bool": "pred", "bfloat16": "bf16", "float": "f", "int": "s", "uint": "u", "complex": "c"}


class Known(NamedTuple):
    """A value that is the same at every run; `value` where all its elements are one known number, else None."""

    value: Any = None


class Equation(NamedTuple):
    """A live equation, why it may be folded ("" if not), how often it runs, and which of its results are needed."""

    eqn: JaxprEqn
    reason: str
    times: int
    wanted: tuple[bool, ...]

    @property
    def shape(self) -> str:
        """Type and dimensions of its first result, as HLO writes them."""
        aval: Any = self.eqn.outvars[0].aval
        return shape_key(aval.dtype, aval.shape)


def shape_key(dtype: Any, dims: Iterable[int]) -> str:
    """`f32[8,16]`: a shape as HLO writes it."""
    name = np.dtype(dtype).name if not hasattr(dtype, "name") else dtype.name
    short = _TYPES.get(name)
    if short is None:
        letters = name.rstrip("0123456789")
        short = _TYPES.get(letters, letters) + name[len(letters) :]
    return f"{short}[{','.join(map(str, dims))}]"


def equations(jaxpr: ClosedJaxpr) -> list[Equation]:
    """Every live equation of a program at any depth that runs no other program; loops of unknown length taken once."""
    known = [_known(value) for value in jaxpr.consts]
    needed = tuple((True, True) for _ in jaxpr.jaxpr.outvars)
    return list(_Visit(jaxpr.jaxpr, [None] * len(jaxpr.jaxpr.invars), known, 1).backward(needed)[0])


def _known(value: Any) -> Known:
    """A closed-over constant; one number where it is small enough to look at."""
    if not hasattr(value, "shape") or getattr(value, "size", 0) > 2**16 or not hasattr(value, "__array__"):
        return Known()
    array = np.asarray(value)
    return Known(array.flat[0].item()) if array.size and (array == array.flat[0]).all() else Known()


class _Visit:
    """One program: forward for the constants, then backward for what is needed, without and with folding."""

    def __init__(self, jaxpr: Jaxpr, arguments: list[Known | None], consts: list[Known], times: int):
        self.jaxpr, self.times = jaxpr, times
        self.known: dict[Any, Known] = dict(zip(jaxpr.constvars, consts, strict=True))
        self.known |= {v: k for v, k in zip(jaxpr.invars, arguments, strict=True) if k is not None}
        self.reasons = [self._reason(eqn) for eqn in jaxpr.eqns]

    def of(self, v: Any) -> Known | None:
        """What is known of a variable or literal."""
        if not isinstance(v, Literal):
            return self.known.get(v)
        return Known(np.asarray(v.val).item()) if np.ndim(v.val) == 0 else _known(v.val)

    def _reason(self, eqn: JaxprEqn) -> str:
        """Why the equation may be folded; notes what it yields."""
        inputs, name = [self.of(v) for v in eqn.invars], eqn.primitive.name
        if all(k is not None for k in inputs) and not eqn.effects and name != "optimization_barrier":
            handed_on = inputs[0] if inputs and name in _HANDED_ON else None
            self.known |= dict.fromkeys(eqn.outvars, handed_on or Known(_evaluate(eqn, inputs)))
            return "constant"
        values = [k.value if k is not None else None for k in inputs]
        if name in _NEUTRAL and any(v is not None and v == _NEUTRAL[name] for v in values):
            return {"mul": "x·1", "add": "x + 0", "add_any": "x + 0"}.get(name, f"x {name} {_NEUTRAL[name]}")
        if name == "sub" and values[1] is not None and values[1] == 0:
            return "x − 0"
        if name == "select_n" and values[0] is not None:
            return "select by a constant"
        if name == "select_n" and len(set(map(id, eqn.invars[1:]))) == 1:
            return "select between equals"
        return ""

    def backward(self, needed: tuple[tuple[bool, bool], ...]) -> tuple[list[Equation], list[tuple[bool, bool]]]:
        """(equations, needs of the arguments); a need is a pair: without folding, and with everything folded."""
        live: dict[Any, tuple[bool, bool]] = {}
        _need(live, zip(self.jaxpr.outvars, needed, strict=True))
        found: list[Equation] = []
        for eqn, reason in zip(reversed(self.jaxpr.eqns), reversed(self.reasons), strict=True):
            wanted = [live.get(v, (False, False)) for v in eqn.outvars]
            effects = bool(eqn.effects)
            plain, folded = (effects or any(w[k] for w in wanted) for k in (0, 1))
            if not plain:
                continue
            rule = TABLE.get(eqn.primitive.name)
            bodies = rule(eqn) if rule is not None else None
            if isinstance(bodies, Bodies):
                _need(live, zip(eqn.invars, self._bodies(eqn, bodies, wanted, found), strict=True))
                continue
            why = reason or ("" if folded else "feeds only what is folded")
            found.append(Equation(eqn, why, self.times, tuple(plain for plain, _ in wanted)))
            _need(live, ((v, (True, folded and k)) for v, k in zip(eqn.invars, self._keeps(eqn, reason), strict=True)))
        return found, [live.get(v, (False, False)) for v in self.jaxpr.invars]

    def _keeps(self, eqn: JaxprEqn, reason: str) -> list[bool]:
        """Which operands are still needed once the equation is folded."""
        if reason == "constant":
            return [False] * len(eqn.invars)
        if reason == "select by a constant":
            chosen = 1 + int(self.of(eqn.invars[0]).value)  # pyright: ignore[reportOptionalMemberAccess]
            return [i == chosen for i in range(len(eqn.invars))]
        return [True] * len(eqn.invars)

    def _bodies(self, eqn: JaxprEqn, bodies: Bodies, wanted: list[tuple[bool, bool]], found: list[Equation]):
        operands = [(k, k) for k in (i in bodies.also_needed for i in range(len(eqn.invars)))]
        for body in bodies.all:
            more, needs = self._body(eqn, body, wanted)
            found.extend(more)
            for i, need in zip(body.inputs, needs, strict=True):
                if i is not None:
                    operands[i] = (operands[i][0] or need[0], operands[i][1] or need[1])
        return operands

    def _body(self, eqn: JaxprEqn, body: Body, wanted: list[tuple[bool, bool]]):
        closed = body.jaxpr if isinstance(body.jaxpr, ClosedJaxpr) else ClosedJaxpr(body.jaxpr, [])
        looped = body.carry or body.trips != 1
        arguments = [None if i is None or looped else self.of(eqn.invars[i]) for i in body.inputs]
        trips = while_trips(eqn, body) if body.trips is None else body.trips
        times = self.times * (1 if trips is None else trips)
        visit = _Visit(closed.jaxpr, arguments, [_known(c) for c in closed.consts], times)
        needs = [(True, True) if i is None else wanted[i] for i in body.outputs]
        while True:
            more, inner = visit.backward(tuple(needs))
            carried = [inner[body.carry_start + k] if k < body.carry else (False, False) for k in range(len(needs))]
            again = [(a[0] or b[0], a[1] or b[1]) for a, b in zip(needs, carried, strict=True)]
            if again == needs:
                return more, inner
            needs = again


def _need(live: dict[Any, tuple[bool, bool]], needs: Iterable[tuple[Any, tuple[bool, bool]]]) -> None:
    for v, need in needs:
        if not isinstance(v, Literal):
            before = live.get(v, (False, False))
            live[v] = (before[0] or need[0], before[1] or need[1])


def _is_one_instruction(eqn: JaxprEqn) -> bool:
    """Whether it lowers to one instruction; a conversion to its own dtype lowers to none."""
    if eqn.primitive.name == "convert_element_type":
        before, after = (x.aval for x in (eqn.invars[0], eqn.outvars[0]))
        return getattr(before, "dtype", None) != getattr(after, "dtype", None)
    return eqn.primitive.name in OPCODES


_ARITHMETIC = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "max": max,
    "min": min,
    "neg": lambda a: -a,
    "not": lambda a: not a if isinstance(a, bool) else ~a,
    "sign": lambda a: (a > 0) - (a < 0),
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "select_n": lambda which, *cases: cases[int(which)],
    "abs": abs,
    "cos": np.cos,
    "exp": np.exp,
    "rsqrt": lambda a: 1 / np.sqrt(a),
    "sin": np.sin,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
}


def _evaluate(eqn: JaxprEqn, inputs: list[Known | None]) -> Any:
    """The number that an equation yields when all its operands are known numbers; None where it is not simple."""
    name, values = eqn.primitive.name, [k.value for k in inputs if k is not None]
    if name == "iota":
        return 0 if eqn.params["shape"][eqn.params["dimension"]] == 1 else None
    if name not in _ARITHMETIC or None in values or len(values) != len(inputs):
        return None
    with np.errstate(all="ignore"):
        return _ARITHMETIC[name](*values)


def folded(expected: list[Equation], present: Counter[tuple[str, str]]) -> Iterator[tuple[str, str, str, int]]:
    """(primitive, shape, reason, runs) of the equations that are missing from the HLO and may be folded.

    `present` counts the runs of HLO instructions by (primitive, shape). Of a kind that is missing more often than it
    may be folded, only the foldable ones are named.
    """
    runs: Counter[tuple[str, str]] = Counter()
    candidates: dict[tuple[str, str], Counter[str]] = {}
    for equation in filter(lambda equation: _is_one_instruction(equation.eqn), expected):
        key = equation.eqn.primitive.name, equation.shape
        runs[key] += equation.times
        if equation.reason:
            candidates.setdefault(key, Counter())[equation.reason] += equation.times
    for key, reasons in candidates.items():
        missing = runs[key] - present[key]
        for reason, n in reasons.items():
            gone = min(missing, n)
            if gone > 0:
                missing -= gone
                yield *key, reason, gone
