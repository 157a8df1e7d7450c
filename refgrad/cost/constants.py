"""Constants of a jaxpr: the values that are known before it runs, and the equations that may be folded for them.

The lowering folds constants, x · 1, x ± 0 and a select by a constant. These are candidates: the rules here say which
may be folded, the HLO says which are.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from refgrad.cost.operations import Parts
from refgrad.jaxpr.analysis import Forward
from refgrad.jaxpr.calls import Form, bodies_of
from refgrad.jaxpr.versions import closed, opened

_HANDED_ON = ("broadcast_in_dim", "reshape", "squeeze", "transpose", "split", "slice", "convert_element_type", "copy")
_NEUTRAL = {"mul": 1, "add": 0, "add_any": 0, "and": True, "or": False, "xor": False, "ne": False, "eq": True}
_NEUTRAL_OF = {"reduce_sum": 0, "reduce_prod": 1, "reduce_and": True, "reduce_or": False}  # of reductions of nothing
_IDENTITIES = ("stop_gradient", "name", "pvary")
EQUALS = "select between equals"
EXPONENT = "constant exponent"  # of which only the conversion to the base's dtype goes


class Known(NamedTuple):
    """A value that is the same at every run; `value` where all its elements are one known number, else None."""

    value: Any = None


class Constants(Forward[Known | None]):
    """Known values of a program's variables before it runs.

    `reasons` says for each equation why it may be folded: "" where nothing speaks for it.
    """

    unknown = None
    follows = frozenset()

    def __init__(self, program: ClosedJaxpr | Jaxpr, arguments: Sequence[Known | None] = ()):
        """Look through `program`, given the known values of its `arguments`: () for none."""
        self._program = program
        values = zip(opened(program).constvars, closed(program).consts, strict=True)
        self._consts = {v: known_value(value) for v, value in values}
        self._same: dict[Any, Any] = {}
        self.reasons: dict[JaxprEqn, str] = {}
        self._known = self.flow(program, arguments or [None] * len(opened(program).invars))

    @cached_property
    def parts(self) -> Parts:
        """The part that each equation has in the program."""
        return Parts(self._program)

    def equation(self, eqn: JaxprEqn, entering: list[Known | None]) -> Sequence[Known | None]:
        """Return the known values of the results, and note why the equation may be folded."""
        self.reasons[eqn] = reason = fold_reason(eqn, entering)
        if (carries := _without_trips(eqn)) is not None:
            self._same |= {v: self._origin(eqn.invars[i]) for v, i in zip(eqn.outvars, carries, strict=False)}
            return [entering[i] for i in carries] + [None] * (len(eqn.outvars) - len(carries))
        if reason == "constant":
            return [result(eqn, entering)] * len(eqn.outvars)
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
    return Known(array.flat[0].item()) if array.size and (array == array.flat[0]).all() else Known()


def fold_reason(eqn: JaxprEqn, inputs: list[Known | None]) -> str:
    """Return the reason why the equation may be folded, given its operands' known values; "" if it may not."""
    name = eqn.primitive.name
    constant = all(k is not None for k in inputs) or all(map(is_empty, eqn.outvars))
    if constant and not eqn.effects and name != "optimization_barrier":
        return "constant"
    values = [k.value if k is not None else None for k in inputs]
    boolean = name not in ("ne", "eq") or str(getattr(eqn.invars[0].aval, "dtype", None)) == "bool"
    if name in _NEUTRAL and boolean and any(v is not None and v == _NEUTRAL[name] for v in values):
        return {"mul": "x·1", "add": "x + 0", "add_any": "x + 0"}.get(name, f"x {name} {_NEUTRAL[name]}")
    if name == "pow" and inputs[1] is not None:
        return EXPONENT
    if name == "sub" and values[1] is not None and values[1] == 0:
        return "x − 0"
    if name == "select_n" and values[0] is not None:
        return "select by a constant"
    return ""


def result(eqn: JaxprEqn, inputs: list[Known | None]) -> Known:
    """Return the known value of an equation whose operands are all constant."""
    known = _handed_on(eqn, inputs) or Known(_evaluate(eqn, inputs))
    return known if all(_fits(known, v.aval) for v in eqn.outvars) else Known()


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
