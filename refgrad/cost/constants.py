"""Constants of a jaxpr: the values that are known before it runs, and the equations that may be folded for them.

The lowering folds constants, x · 1, x ± 0 and a select by a constant. These are candidates: the rules here say which
may be folded, the HLO says which are.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from refgrad.cost.operations import EquationParts
from refgrad.jaxpr.analysis import Forward
from refgrad.jaxpr.calls import Form, bodies_of
from refgrad.jaxpr.interpret import Interpreter
from refgrad.jaxpr.programs import inside
from refgrad.jaxpr.versions import closed, opened

_HANDED_ON = ("broadcast_in_dim", "reshape", "squeeze", "transpose", "split", "slice", "convert_element_type", "copy")
NEUTRAL = {"mul": 1, "add": 0, "add_any": 0, "and": True, "or": False, "xor": False, "ne": False, "eq": True}
_NEUTRAL_OF = {"reduce_sum": 0, "reduce_prod": 1, "reduce_and": True, "reduce_or": False}  # of reductions of nothing
_NOT_FOLDED = ("optimization_barrier", "program_id", "num_programs", "axis_index")
_IDENTITIES = ("stop_gradient", "name", "pvary")
SMALL = 1024  # elements of an array whose entries are looked at one by one
EQUALS = "select between equals"
EXPONENT = "constant exponent"  # of which only the conversion to the base's dtype goes


class Known(NamedTuple):
    """A value that is the same at every run; `value` where all its elements are one known number, else None."""

    value: Any = None
    entries: tuple[int, ...] | None = None
    """The elements, flat, where they are few integers or booleans that differ."""


class Constants(Forward[Known | None]):
    """Known values of a program's variables before it runs.

    `reasons` says for each equation why it may be folded: "" where nothing speaks for it.
    """

    unknown = None
    follows = frozenset()

    def __init__(
        self,
        program: ClosedJaxpr | Jaxpr,
        arguments: Sequence[Known | None] = (),
        place: Mapping[str, Sequence[int]] | None = None,
    ):
        """Look through `program`, given what is known of its `arguments`: () where that is nothing.

        In a kernel `place` holds the point of its grid, "program_id", and the sizes of the grid, "num_programs".
        """
        self._program, self.place = program, place or {}
        values = zip(opened(program).constvars, closed(program).consts, strict=True)
        self._consts = {v: known_value(value) for v, value in values}
        self._same: dict[Any, Any] = {}
        self.reasons: dict[JaxprEqn, str] = {}
        self._known = self.flow(program, arguments or [None] * len(opened(program).invars))

    @cached_property
    def parts(self) -> EquationParts:
        """The part that each equation has in the program."""
        return EquationParts(self._program)

    def equation(self, eqn: JaxprEqn, entering: list[Known | None]) -> Sequence[Known | None]:
        """Return what is known of the results, and note why the equation may be folded."""
        if eqn.primitive.name in self.place:
            self.reasons[eqn] = ""
            return [Known(self.place[eqn.primitive.name][eqn.params["axis"]])]
        self.reasons[eqn] = reason = fold_reason(eqn, entering)
        if (carries := _without_trips(eqn)) is not None:
            self._same |= {v: self._origin(eqn.invars[i]) for v, i in zip(eqn.outvars, carries, strict=False)}
            return [entering[i] for i in carries] + [None] * (len(eqn.outvars) - len(carries))
        if reason == "constant":
            return results(eqn, entering)
        if eqn.primitive.name in _IDENTITIES:
            self._same[eqn.outvars[0]] = self._origin(eqn.invars[0])
        elif eqn.primitive.name == "select_n" and len({self._origin(v) for v in eqn.invars[1:]}) == 1:
            self.reasons[eqn] = reason or EQUALS
        return [None] * len(eqn.outvars)

    def read(self, env: dict[Any, Known | None], atom: Any) -> Known | None:
        """Return the known value of a variable or literal; one without elements is a constant."""
        if isinstance(atom, Literal):
            return known_value(atom.val)
        return Known() if is_empty(atom) else env.get(atom, self._consts.get(atom))

    def _origin(self, v: Any) -> Any:
        return id(v) if isinstance(v, Literal) else self._same.get(v, v)

    def of(self, v: Any) -> Known | None:
        """Return the known value of a variable or literal."""
        return self.read(self._known, v)


def known_value(value: Any) -> Known:
    """A literal or a closed-over constant; one number where it is small enough to look at and all elements agree."""
    if isinstance(value, bool | int | float | complex | np.generic):
        return Known(np.asarray(value).item())
    if isinstance(value, Tracer) or not hasattr(value, "__array__") or value.size > 2**16:
        return Known()
    if jnp.issubdtype(value.dtype, jax.dtypes.extended):  # random keys
        return Known()
    array = np.asarray(value)
    if array.size and (array == array.flat[0]).all():
        return Known(array.flat[0].item())
    few = array.dtype.kind in "biu" and 0 < array.size <= SMALL
    return Known(None, tuple(array.ravel().tolist())) if few else Known()


def fold_reason(eqn: JaxprEqn, inputs: list[Known | None]) -> str:
    """Return the reason why the equation may be folded, given its operands' known values; "" if it may not."""
    name = eqn.primitive.name
    constant = all(k is not None for k in inputs) or all(map(is_empty, eqn.outvars))
    if constant and not eqn.effects and name not in _NOT_FOLDED:
        return "constant"
    values = [k.value if k is not None else None for k in inputs]
    boolean = name not in ("ne", "eq") or str(getattr(eqn.invars[0].aval, "dtype", None)) == "bool"
    if name in NEUTRAL and boolean and any(v is not None and v == NEUTRAL[name] for v in values):
        return {"mul": "x·1", "add": "x + 0", "add_any": "x + 0"}.get(name, f"x {name} {NEUTRAL[name]}")
    if name == "pow" and inputs[1] is not None:
        return EXPONENT
    if name == "sub" and values[1] is not None and values[1] == 0:
        return "x − 0"
    if name == "select_n" and values[0] is not None:
        return "select by a constant"
    return ""


def results(eqn: JaxprEqn, inputs: list[Known | None]) -> list[Known]:
    """Return the known values of the results of an equation whose operands are all constant."""
    known = _handed_on(eqn, inputs) or Known(_evaluate(eqn, inputs))
    if known.value is None:
        return _computed(eqn, inputs)
    return [known if all(_fits(known, v.aval) for v in eqn.outvars) else Known()] * len(eqn.outvars)


def _computed(eqn: JaxprEqn, inputs: list[Known | None]) -> list[Known]:
    """The same by running the equation, where that yields little: what branches and loops ask for."""
    unknown = [Known()] * len(eqn.outvars)
    if not all(is_small(v.aval) for v in eqn.outvars) or _loops(eqn):
        return unknown
    values = [array_of(known, v.aval) for known, v in zip(inputs, eqn.invars, strict=True)]
    if any(value is None for value in values):
        return unknown
    try:
        with jax.ensure_compile_time_eval():
            return [known_value(np.asarray(value)) for value in Interpreter().bind(eqn, values)]
    except Exception:  # a primitive that runs only in its place, such as in a kernel
        return unknown


def array_of(known: Known | None, aval: Any) -> Any:
    """The array that is known, where it is small; else None."""
    if known in (None, Known()) or math.prod(aval.shape) > SMALL:
        return None
    if known.entries is None:
        return np.full(aval.shape, known.value, aval.dtype)
    return np.asarray(known.entries, aval.dtype).reshape(aval.shape)


def is_small(aval: Any) -> bool:
    """Return True for a type of few integers or booleans, or of one real number."""
    limit = {"b": SMALL, "i": SMALL, "u": SMALL, "f": 1}.get(getattr(getattr(aval, "dtype", None), "kind", ""))
    return limit is not None and math.prod(aval.shape) <= limit


def _loops(eqn: JaxprEqn) -> bool:
    """Return True for an equation that runs a loop, at any depth."""
    found = map(bodies_of, (eqn, *inside(eqn)))
    return any(bodies is not None and bodies.form in (Form.SCAN, Form.WHILE) for bodies in found)


def is_empty(v: Any) -> bool:
    """Return True for a variable or literal without elements."""
    return 0 in getattr(v.aval, "shape", ())


def _without_trips(eqn: JaxprEqn) -> range | None:
    """Return the operands that a scan of no trips returns as its first results; None for any other equation."""
    bodies = bodies_of(eqn) if eqn.params.get("length") == 0 else None
    if bodies is None or bodies.form is not Form.SCAN:
        return None
    (body,) = bodies.all
    return range(body.carry_start, body.carry_start + body.carry)


def _handed_on(eqn: JaxprEqn, inputs: list[Known | None]) -> Known | None:
    """Return the known value of an operand whose elements alone make the result; None where no single one does."""
    name = eqn.primitive.name
    if name == "pad" and is_empty(eqn.invars[0]):
        return inputs[1]
    if name == "concatenate":
        joined = {known for v, known in zip(eqn.invars, inputs, strict=True) if not is_empty(v)}
        return joined.pop() if len(joined) == 1 else None
    return inputs[0] if inputs and name in _HANDED_ON else None


def _fits(known: Known, aval: Any) -> bool:
    """Return True unless the number is outside of an integer type, which would wrap or truncate it."""
    if known.value is None or getattr(aval.dtype, "kind", "") not in ("i", "u"):
        return True
    limits = np.iinfo(aval.dtype)
    return isinstance(known.value, int | np.integer) and int(limits.min) <= int(known.value) <= int(limits.max)


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
    "clamp": lambda low, a, high: min(max(low, a), high),
    "cos": np.cos,
    "exp": np.exp,
    "rsqrt": lambda a: 1 / np.sqrt(a),
    "sin": np.sin,
    "sqrt": np.sqrt,
    "square": lambda a: a * a,
    "tanh": np.tanh,
}


def _evaluate(eqn: JaxprEqn, inputs: list[Known | None]) -> Any:
    """The number that an equation yields when all its operands are known numbers; None where it is not simple."""
    name, values = eqn.primitive.name, [k.value for k in inputs if k is not None]
    if name == "iota":
        return 0 if eqn.params["shape"][eqn.params["dimension"]] == 1 else None
    if name in _NEUTRAL_OF and is_empty(eqn.invars[0]):
        return _NEUTRAL_OF[name]
    if name == "integer_pow" and values[0] is not None:
        return float(values[0]) ** eqn.params["y"] if values[0] else None
    if name not in _ARITHMETIC or None in values or len(values) != len(inputs):
        return None
    with np.errstate(all="ignore"):
        return _ARITHMETIC[name](*values)
